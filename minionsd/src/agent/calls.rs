//! How the calls to one agent fare: three failures in a row are news for its supervisor.

use minions_api::vm::Failure;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

use crate::vm::transition::FAILURES_TO_UNREACHABLE;

/// The last calls, by those who made them and for the supervisor.
#[derive(Debug)]
pub(crate) struct Calls {
    failed_in_a_row: AtomicU32,
    /// At which layer the last one failed.
    failure: Mutex<Failure>,
    changed: Notify,
}

impl Default for Calls {
    fn default() -> Self {
        let failure = Mutex::new(Failure::AgentSilent);
        Self { failed_in_a_row: AtomicU32::new(0), failure, changed: Notify::new() }
    }
}

impl Calls {
    /// One was answered, or nothing is held against the agent any more.
    pub(crate) fn succeeded(&self) {
        // Nearly always: and then nobody else's cache is disturbed.
        if self.failed_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failed_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// One failed, and it was the agent's fault.
    pub(crate) fn failed(&self, failure: Failure) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        if self.failed_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_TO_UNREACHABLE {
            self.changed.notify_one();
        }
    }

    /// Waits until too many have failed in a row, and says how the last one did.
    ///
    /// Cancel safe.
    pub(crate) async fn too_many_failed(&self) -> Failure {
        loop {
            if self.failed_in_a_row.load(Ordering::Relaxed) >= FAILURES_TO_UNREACHABLE {
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
    fn three_failures_in_a_row_are_too_many_and_a_success_forgives() {
        let calls = Calls::default();
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
