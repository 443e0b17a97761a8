//! Outcomes of the calls to one agent. Too many failures in a row are reported to its supervisor.

use minions_api::vm::Failure;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Outcomes of the last calls, recorded by the callers and read by the supervisor.
#[derive(Debug)]
pub(crate) struct CallOutcomes {
    /// Number of failures in a row that are reported.
    too_many: u32,
    failed_in_a_row: AtomicU32,
    /// Layer at which the last failed call failed.
    failure: Mutex<Failure>,
    changed: Notify,
}

impl CallOutcomes {
    /// Starts without outcomes. `too_many` failures in a row are reported to the supervisor.
    pub(crate) fn new(too_many: u32) -> Self {
        let failure = Mutex::new(Failure::AgentSilent);
        Self { too_many, failed_in_a_row: AtomicU32::new(0), failure, changed: Notify::new() }
    }

    /// Forgets the failures: a call was answered, or the earlier failures no longer count.
    pub(crate) fn succeeded(&self) {
        // The counter is nearly always zero. Without a store, the cache line stays shared between the cores.
        if self.failed_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failed_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Records a failure for which the agent is responsible.
    pub(crate) fn failed(&self, failure: Failure) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        if self.failed_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= self.too_many {
            self.changed.notify_one();
        }
    }

    /// Waits until too many calls have failed in a row, and returns the failure of the last one.
    ///
    /// Cancel safe.
    pub(crate) async fn too_many_failed(&self) -> Failure {
        loop {
            if self.failed_in_a_row.load(Ordering::Relaxed) >= self.too_many {
                return *self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn three_failures_in_a_row_are_too_many_and_a_success_resets_the_count() {
        let calls = CallOutcomes::new(3);
        calls.failed(Failure::AgentSilent);
        calls.failed(Failure::AgentSilent);
        calls.succeeded();
        calls.failed(Failure::AgentSilent);
        calls.failed(Failure::AgentSilent);
        assert_eq!(calls.too_many_failed().now_or_never(), None);
        calls.failed(Failure::ProtocolError);
        assert_eq!(calls.too_many_failed().now_or_never(), Some(Failure::ProtocolError));
        calls.succeeded();
        assert_eq!(calls.too_many_failed().now_or_never(), None);
    }
}
