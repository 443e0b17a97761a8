//! Lease of a quiesced guest, on the host's clock.
//!
//! The agent thaws its guest by itself when the lease ends on the guest's clock. That clock may stop while the VM is
//! paused for a snapshot. So the host remembers the end too: a guest that reports its lease after that end was paused, and
//! is thawed at once.

use crate::agent::AgentConnection;
use minions_api::{Timestamp, VmName};
use minions_proto::message::{Health, MAX_TTL_MS, QuiesceLease, Thaw};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Time after the end of a lease in which the agent thaws by itself.
const SLACK: Duration = Duration::from_secs(1);

/// Deadline for the thaw on the supervisor's connection. The thaw hooks may take longer; the agent runs them to the end.
const DEADLINE: Duration = Duration::from_secs(1);

/// Longest id that is kept. Ids are written by the guest.
const MAX_ID_LEN: usize = 128;

/// Lease of one guest. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostLease(Arc<Mutex<Option<LeaseEnd>>>);

#[derive(Debug, Clone)]
struct LeaseEnd {
    id: String,
    /// Time at which the lease became known.
    known_at: SystemTime,
    ends_at: Instant,
    shown: Timestamp,
}

impl HostLease {
    /// Records a lease that was just reported, and returns its end.
    pub(crate) fn begin(&self, lease: QuiesceLease) -> Timestamp {
        let QuiesceLease { mut id, lease_ms } = lease;
        id.truncate(id.floor_char_boundary(MAX_ID_LEN));
        let left = Duration::from_millis(lease_ms.min(MAX_TTL_MS));
        let known_at = SystemTime::now();
        let shown = Timestamp(known_at + left);
        *self.known() = Some(LeaseEnd { id, known_at, ends_at: Instant::now() + left, shown });
        shown
    }

    /// Records that the guest was thawed.
    pub(crate) fn end(&self) {
        *self.known() = None;
    }

    /// Returns the end of the lease.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.known().as_ref().map(|lease| lease.shown)
    }

    /// Compares the lease with a health reply to a request that was sent at `asked`. Returns the thaw that the guest needs,
    /// because its lease has ended on the host's clock.
    pub(crate) fn compare(&self, health: &Health, asked: SystemTime) -> Option<Thaw> {
        let Some(reported) = &health.quiesced else {
            let mut known = self.known();
            // A reply from before the quiesce says nothing about it.
            if known.as_ref().is_some_and(|lease| lease.known_at < asked) {
                *known = None;
            }
            return None;
        };
        let known = self.known().clone().filter(|known| known.id == reported.id);
        match known {
            None => {
                self.begin(reported.clone());
                None
            }
            Some(known) => {
                (known.ends_at + SLACK < Instant::now()).then_some(Thaw { id: Some(known.id) })
            }
        }
    }

    /// Thaws the guest if its lease has ended on the host's clock.
    ///
    /// Not cancel safe: if the future is dropped, the connection cannot be used any more.
    pub(crate) async fn keep(
        &self,
        vm: &VmName,
        connection: &mut AgentConnection,
        health: &Health,
        asked: SystemTime,
    ) {
        let Some(thaw) = self.compare(health, asked) else { return };
        match connection.call(&thaw, Instant::now() + DEADLINE).await {
            Ok(_) => tracing::info!(%vm, "thawed: the lease ended while the VM was paused"),
            Err(error) => tracing::warn!(%vm, %error, "thaw after the end of the lease"),
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<LeaseEnd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn health(quiesced: Option<(&str, u64)>) -> Health {
        let quiesced = quiesced.map(|(id, lease_ms)| QuiesceLease { id: id.into(), lease_ms });
        Health {
            uptime_secs: 1,
            hostname: "h".into(),
            agent: None,
            time_unix_ms: None,
            quiesced,
            network_changes: None,
        }
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_slept_through_the_end_of_its_lease_is_thawed() {
        let lease = HostLease::default();
        let _ = lease.begin(QuiesceLease { id: "q-1".into(), lease_ms: 30_000 });
        assert_eq!(lease.compare(&health(Some(("q-1", 29_000))), later()), None);
        advance(Duration::from_secs(60)).await;
        // The guest's clock has stopped meanwhile.
        let due = lease.compare(&health(Some(("q-1", 28_000))), later());
        assert_eq!(due, Some(Thaw { id: Some("q-1".into()) }));
        // Another quiesce has a lease of its own.
        assert_eq!(lease.compare(&health(Some(("q-2", 28_000))), later()), None);
        assert_eq!(lease.compare(&health(Some(("q-2", 27_000))), later()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_forgotten_when_the_guest_reports_none_any_more() {
        let lease = HostLease::default();
        let asked_before = SystemTime::now() - Duration::from_secs(1);
        let _ = lease.begin(QuiesceLease { id: "q-1".into(), lease_ms: 30_000 });
        assert_eq!(lease.compare(&health(None), asked_before), None);
        assert!(lease.until().is_some(), "an older answer ended the lease");
        assert_eq!(lease.compare(&health(None), later()), None);
        assert!(lease.until().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_cannot_report_a_lease_that_never_ends() {
        let lease = HostLease::default();
        assert_eq!(lease.compare(&health(Some(("q-1", u64::MAX))), later()), None);
        advance(Duration::from_millis(MAX_TTL_MS) + 2 * SLACK).await;
        assert!(lease.compare(&health(Some(("q-1", u64::MAX))), later()).is_some());
    }
}
