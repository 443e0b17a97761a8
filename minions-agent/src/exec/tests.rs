//! Ids, fingerprints and removal of execs.

use super::*;
use minions_proto::message::{OnDisconnect, Tty};

#[tokio::test(start_paused = true)]
async fn an_exec_that_does_not_end_is_not_removed() {
    let groups = ProgramGroups::Below(format!("minions-test-{}", std::process::id()));
    let executor = Executor::new(Duration::from_secs(1), None, ProgramDefaults::default(), groups);
    let id: ExecId = "frozen".parse().unwrap();
    let registry = &executor.shared.registry;
    assert!(matches!(registry.find_or_begin(&id, KnownRequest::Hash(0)), Ok(IdLookup::New { .. })));
    // No task owns it, as if its process never ended.
    let exec = Arc::new(Exec::new(id.clone(), 1, &ExecStart::default()));
    registry.running(&exec);

    let error = executor.remove(&id).await.unwrap_err();
    assert!(matches!(&error, ExecError::NotEnded(which) if *which == id), "{error:?}");
    let info = executor.inspect(ExecInspect { id: id.clone(), wait_ms: None }).await.unwrap();
    assert_eq!(info.outcome, None);
    assert!(matches!(registry.find_or_begin(&id, KnownRequest::Hash(1)), Err(ExecError::Conflict)));

    // Once it has ended, it can be removed.
    let ended = minions_proto::channel::Ended {
        outcome: minions_proto::message::Outcome::Exited { code: 0 },
        usage: minions_proto::message::Usage::default(),
    };
    exec.finish(ended, None);
    executor.remove(&id).await.unwrap();
    assert!(matches!(executor.remove(&id).await.unwrap_err(), ExecError::Gone(_)));
}
#[tokio::test]
async fn a_fingerprint_covers_all_but_the_limits_of_time_and_the_disconnect_policy() {
    let executor = || {
        let groups = ProgramGroups::Below(format!("minions-test-{}", std::process::id()));
        Executor::new(Duration::from_secs(1), None, ProgramDefaults::default(), groups)
    };
    let (one, other) = (executor().shared, executor().shared);
    let start = ExecStart { command: "cat".to_owned(), ..ExecStart::default() };
    let same = ExecStart {
        timeout_ms: Some(1),
        kill_grace_ms: Some(1),
        reattach_grace_ms: Some(1000),
        on_disconnect: OnDisconnect::Detach,
        ..start.clone()
    };
    assert_eq!(one.fingerprint(&start), one.fingerprint(&same));
    let text = || Some("x".to_owned());
    let different = [
        ExecStart { command: "tac".to_owned(), ..start.clone() },
        ExecStart { args: vec![String::new()], ..start.clone() },
        ExecStart { env: [(String::new(), String::new())].into(), ..start.clone() },
        ExecStart { cwd: text(), ..start.clone() },
        ExecStart { user: text(), ..start.clone() },
        ExecStart { stdin: true, ..start.clone() },
        ExecStart { tty: Some(Tty { rows: 1, cols: 1, term: None }), ..start.clone() },
        ExecStart { rlimits: [("cpu".to_owned(), 1)].into(), ..start.clone() },
        ExecStart { memory_bytes: Some(1), ..start.clone() },
        ExecStart { pids: Some(1), ..start.clone() },
    ];
    for different in different {
        assert_ne!(one.fingerprint(&start), one.fingerprint(&different), "{different:?}");
    }
    assert_ne!(one.fingerprint(&start), other.fingerprint(&start), "each agent has its own keys");
}
