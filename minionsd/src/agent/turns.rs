//! Turns of one VM's streams on the daemon's threads.
//!
//! The runtime gives equal turns to all tasks that are ready, so a VM with 64 busy streams would get 64 times as
//! much processor time as a VM with one call. Here at most half of the threads work on streams of one VM at
//! the same time; its other streams wait outside of the runtime's queue, and do not delay other VMs.
//!
//! A turn lasts for one poll of a stream's task, which the runtime bounds, and is never held while a task
//! waits for its client or its agent.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Maximum number of streams of one VM that work at the same time.
static CONCURRENCY: LazyLock<usize> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (threads / 2).max(1)
});

/// Turns of one VM's streams. Cheap to clone: the clones share the turns.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamTurns(Arc<Mutex<TurnState>>);

#[derive(Debug, Default)]
struct TurnState {
    /// Number of turns in use.
    working: usize,
    /// Tasks that have found no free turn since the last end of a turn. The end of a turn wakes all of them, and they
    /// try again: if the turn were reserved for one of them, the VM's streams would stall until that task is polled.
    waiting: Vec<Waker>,
}

impl StreamTurns {
    /// Polls a stream's future in turns with the VM's other streams.
    ///
    /// Cancel safe if the future is.
    pub(crate) fn take<F: Future>(&self, future: F) -> InTurns<F> {
        InTurns { turns: self.clone(), future: Box::pin(future) }
    }

    fn begin(&self, context: &Context<'_>) -> Option<TakenTurn<'_>> {
        let mut state = self.state();
        if state.working < *CONCURRENCY {
            state.working += 1;
            return Some(TakenTurn(self));
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        None
    }

    /// Locks the state. The lock is never held while a stream's future is polled.
    fn state(&self) -> MutexGuard<'_, TurnState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turn that a stream has taken. Dropping it, also by a panic, ends the turn.
struct TakenTurn<'a>(&'a StreamTurns);

impl Drop for TakenTurn<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state();
            state.working -= 1;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Future that is polled in turns.
#[derive(Debug)]
pub(crate) struct InTurns<F> {
    turns: StreamTurns,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for InTurns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { turns, future } = &mut *self;
        let Some(_turn) = turns.begin(context) else { return Poll::Pending };
        future.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::task::{JoinSet, yield_now};

    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn all_streams_complete_and_no_more_than_the_limit_work_at_once() {
        let (turns, working, most) =
            (StreamTurns::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new((working, most));
        let mut streams = JoinSet::new();
        for _ in 0..64 {
            let shared = Arc::clone(&shared);
            streams.spawn(turns.take(async move {
                for _ in 0..100 {
                    let now = shared.0.fetch_add(1, Ordering::SeqCst) + 1;
                    shared.1.fetch_max(now, Ordering::SeqCst);
                    std::hint::black_box((0..1_000).sum::<u64>());
                    shared.0.fetch_sub(1, Ordering::SeqCst);
                    yield_now().await;
                }
            }));
        }
        while let Some(ended) = streams.join_next().await {
            ended.unwrap();
        }
        assert!((1..=*CONCURRENCY).contains(&shared.1.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_stream_that_waits_for_its_peer_does_not_block_the_others() {
        let turns = StreamTurns::default();
        let stuck: Vec<_> =
            (0..64).map(|_| tokio::spawn(turns.take(std::future::pending::<()>()))).collect();
        yield_now().await;
        turns.take(async { yield_now().await }).await;
        stuck.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_stream_that_panics_in_its_turn_ends_the_turn() {
        let turns = StreamTurns::default();
        for _ in 0..2 * *CONCURRENCY {
            let panics = tokio::spawn(turns.take(async { panic!("in its turn") }));
            assert!(panics.await.unwrap_err().is_panic());
        }
        turns.take(yield_now()).await;
    }
}
