//! Refused calls, counted by caller.
//!
//! A refused call costs its caller nothing, so an entry for each would let any user of the host fill the disk. At most
//! once a second, the refusals of a caller become one entry with their number, the first and the last time, and the
//! last call as an example.

use super::entry::{By, Count, Entry, Stage};
use minions_api::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Maximum number of callers that are counted individually within a second. One user may have thousands of uids
/// (subuids); further callers are counted together.
const MAX_CALLERS: usize = 32;

/// A refused call.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) by: By,
    pub(crate) action: String,
    pub(crate) vm: Option<String>,
    pub(crate) request_id: String,
    pub(crate) trace_id: Option<String>,
    /// HTTP status; `None` if the caller disconnected before it was refused.
    pub(crate) status: Option<u16>,
}

/// Refused calls since the last entries.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    callers: Mutex<BTreeMap<By, Refused>>,
    any: Notify,
}

#[derive(Debug)]
struct Refused {
    count: Count,
    last: Refusal,
}

impl Refusals {
    /// Counts a refused call. Returns the number of its caller's refusals since the last entries.
    pub(super) fn add(&self, refusal: Refusal) -> u64 {
        let now = Timestamp::now();
        let mut callers = self.callers();
        let is_known = callers.contains_key(&refusal.by);
        let by = if is_known || callers.len() < MAX_CALLERS { refusal.by } else { By::OTHERS };
        match callers.get_mut(&by) {
            Some(refused) => {
                refused.count.count += 1;
                refused.count.last = now;
                refused.last = refusal;
                refused.count.count
            }
            None => {
                let count = Count { count: 1, first: now, last: now };
                callers.insert(by, Refused { count, last: refusal });
                self.any.notify_one();
                1
            }
        }
    }

    /// Waits for a refused call, and then for the end of the current second of the wall clock, so that two entries of
    /// one caller are never in the same second.
    ///
    /// Cancel safe: [`take`](Self::take) returns the refused calls in any case.
    pub(super) async fn due(&self) {
        if self.callers().is_empty() {
            self.any.notified().await;
        }
        sleep(until_next_second()).await;
    }

    /// Removes all refused calls and returns them as one entry per caller.
    pub(super) fn take(&self) -> Vec<Entry> {
        let callers = std::mem::take(&mut *self.callers());
        callers.into_iter().map(|(by, refused)| entry(by, refused)).collect()
    }

    /// Locks the map. The lock is held only for map operations.
    fn callers(&self) -> MutexGuard<'_, BTreeMap<By, Refused>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(by: By, refused: Refused) -> Entry {
    let Refused { count, last } = refused;
    Entry {
        stage: Stage::Refused,
        by,
        action: last.action,
        vm: last.vm,
        program: None,
        subject: None,
        exec_id: None,
        outcome: None,
        allowed: false,
        status: last.status,
        duration_ms: None,
        count: Some(count),
        request_id: last.request_id,
        trace_id: last.trace_id,
    }
}

fn until_next_second() -> Duration {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // One millisecond more, which is the resolution of a timer.
    Duration::from_millis(1001 - u64::from(since_epoch.subsec_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use minions_api::service::Identity;

    fn refuse(refusals: &Refusals, uid: u32, request_id: &str) {
        refusals.add(Refusal {
            by: By::new(&Identity::User { uid }, false),
            action: "POST /exec".into(),
            vm: None,
            request_id: request_id.into(),
            trace_id: None,
            status: Some(403),
        });
    }

    #[test]
    fn all_refused_calls_of_a_caller_are_one_entry() {
        let refusals = Refusals::default();
        (0..1000).for_each(|n| refuse(&refusals, n % 2, &n.to_string()));
        let entries = refusals.take();
        let counts: Vec<_> = entries
            .iter()
            .map(|entry| (entry.by.uid, entry.count.as_ref().unwrap().count))
            .collect();
        assert_eq!(counts, [(Some(0), 500), (Some(1), 500)]);
        assert_eq!(entries[1].request_id, "999");
        assert!(refusals.take().is_empty());
    }

    #[test]
    fn the_number_of_entries_is_bounded_and_their_counts_include_all_callers() {
        let refusals = Refusals::default();
        (0..10_000).for_each(|uid| refuse(&refusals, uid, ""));
        let entries = refusals.take();
        assert_eq!(entries.len(), MAX_CALLERS + 1);
        let all: u64 = entries.iter().map(|entry| entry.count.as_ref().unwrap().count).sum();
        assert_eq!(all, 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_due_before_a_call_is_refused() {
        let refusals = Refusals::default();
        assert!(refusals.due().now_or_never().is_none());
        refuse(&refusals, 0, "");
        refusals.due().await;
        assert_eq!(refusals.take().len(), 1);
    }
}
