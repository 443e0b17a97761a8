//! A thread that hangs, panics, or has ended.

use super::*;
use std::sync::mpsc as blocking;

fn opened() -> (DeclaredStore, StoreThread) {
    DeclaredStore::open(None).unwrap()
}

/// Makes the thread wait until the sender is dropped. Returns when it waits, so that the queue is empty.
fn block(store: &DeclaredStore) -> blocking::Sender<()> {
    let (begin, begun) = blocking::channel();
    let (release, released) = blocking::channel::<()>();
    let wait = move |_: &mut StateWriter| {
        begin.send(()).unwrap();
        let _ = released.recv();
    };
    store.work.try_send(WriterMessage::Change(Box::new(wait))).unwrap();
    begun.recv().unwrap();
    release
}

fn nothing(_: &DeclaredState) -> Result<(Plan, ()), DeclareError> {
    Ok((Plan::default(), ()))
}

#[tokio::test(start_paused = true)]
async fn a_change_that_waits_for_a_slow_disk_may_still_be_made_and_one_without_a_place_is_not() {
    let (store, _thread) = opened();
    let release = block(&store);
    let error = store.change(nothing).await.unwrap_err();
    assert!(matches!(error, StoreError::Slow { queued: true }), "{error}");
    assert!(error.may_have_executed() && error.to_string().contains("may still be made"));
    while store.work.try_send(WriterMessage::Change(Box::new(|_| ()))).is_ok() {}
    let error = store.change(nothing).await.unwrap_err();
    assert!(matches!(error, StoreError::Slow { queued: false }), "{error}");
    assert!(!error.may_have_executed() && error.to_string().contains("nothing was changed"));
    drop(release);
}

#[tokio::test]
async fn a_plan_that_panics_fails_alone() {
    let (store, _thread) = opened();
    let planned = store.change(|_| -> Result<(Plan, ()), DeclareError> { panic!("a bug") }).await;
    assert!(matches!(planned, Err(StoreError::PlanPanicked)), "{planned:?}");
    store.change(nothing).await.unwrap();
    assert_eq!(store.problem(), None);
}

#[tokio::test]
async fn after_the_end_of_the_thread_changes_fail_by_name_and_reads_work() {
    let (store, _thread) = opened();
    let panics = |(), _: &DeclaredState| -> () { panic!("a bug after the change") };
    let error = store.change_and_read(nothing, panics).await.unwrap_err();
    assert!(matches!(error, StoreError::WriterEnded { queued: true }), "{error}");
    assert!(error.may_have_executed());
    // The thread drops its end of the queue some time later.
    store.work.closed().await;
    let error = store.change(nothing).await.unwrap_err();
    assert!(matches!(error, StoreError::WriterEnded { queued: false }), "{error}");
    assert!(error.to_string().contains("until minionsd is restarted"), "{error}");
    assert!(store.problem().is_some_and(|problem| problem.contains("restarted")));
    assert_eq!(store.read(DeclaredState::revision), 0);
}

#[tokio::test]
async fn a_closed_store_is_one_of_a_daemon_that_stops() {
    let (store, thread) = opened();
    thread.close().await;
    let error = store.change(nothing).await.unwrap_err();
    assert!(matches!(error, StoreError::Stopped), "{error}");
    assert_eq!(store.problem(), None);
}

#[tokio::test]
async fn a_change_is_read_before_the_next_one() {
    let (store, _thread) = opened();
    let release = block(&store);
    let pool = |range: u32| {
        let text = format!(r#"{{"name": "lan", "subnet": "10.0.{range}.0/24"}}"#);
        serde_json::from_str::<minions_api::pool::Pool>(&text).unwrap()
    };
    let put = async |range| {
        let plan = move |state: &DeclaredState| {
            Ok((state.plan_put_pool(pool(range), minions_declare::IfRevision::Any)?, ()))
        };
        let read = |(), state: &DeclaredState| {
            let stored = &state.pools()["lan"];
            (stored.pool.declared().subnet.clone(), stored.revision)
        };
        store.change_and_read(plan, read).await.unwrap()
    };
    let released = async {
        // Both changes are in the queue.
        while store.work.capacity() > QUEUED - 2 {
            tokio::task::yield_now().await;
        }
        drop(release);
    };
    let (first, second, ()) = tokio::join!(put(1), put(2), released);
    assert_eq!(first, ("10.0.1.0/24".to_owned(), 1));
    assert_eq!(second, ("10.0.2.0/24".to_owned(), 2));
}
