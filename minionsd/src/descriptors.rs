//! Division of the process's file descriptors.
//!
//! A process without a free descriptor can neither accept nor dial, and cannot even report that. So the kernel's limit
//! is divided in advance: clients and WebSockets get fixed shares, VMs get the rest, and a few descriptors are
//! reserved for clients beyond the limit, for example to check `/healthz`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Descriptors for the daemon itself: standard streams, the runtime, listeners, inotify, signals, logs, and files that
/// are open briefly.
const OWN: usize = 20;

/// Connections of each listener beyond its limit; these clients are only told to retry later.
pub(crate) const OVERFLOW: usize = 4;

/// Maximum number of connected clients, for TCP and Unix each: users who may only use one listener cannot block the
/// other.
const MAX_CLIENTS: usize = 1024;

/// Maximum number of open WebSockets. An upgraded connection no longer counts towards [`MAX_CLIENTS`].
const MAX_WEBSOCKETS: usize = 1024;

/// Longest wait for a descriptor of VMs. Most are in use for milliseconds: a host with more VMs than descriptors probes
/// them in turn.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Assumed limit if the kernel sets none.
const UNLIMITED: usize = 1024 * 1024;

/// Raises the soft limit of open files to the hard limit. The soft limit is low only for programs that use
/// `select(2)`, which the daemon does not.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, "cannot raise the limit of open files");
    }
}

/// Shares of the descriptor limit. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Descriptors {
    /// Connection limit of each listener.
    pub(crate) clients: usize,
    pub(crate) websockets: usize,
    vms: Arc<Semaphore>,
    vms_limit: usize,
}

impl Descriptors {
    /// Divides the current limit of this process.
    pub(crate) fn of_process() -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        Self::within(limit.map_or(UNLIMITED, |limit| limit.try_into().unwrap_or(UNLIMITED)))
    }

    fn within(limit: usize) -> Self {
        let free = limit.min(UNLIMITED).saturating_sub(OWN + 2 * OVERFLOW).max(8);
        let clients = MAX_CLIENTS.min(free / 8);
        let websockets = MAX_WEBSOCKETS.min(free / 8);
        let vms_limit = free - 2 * clients - websockets;
        Self { clients, websockets, vms: Arc::new(Semaphore::new(vms_limit)), vms_limit }
    }

    /// Takes a descriptor for a connection to a VM; the permit must be held while the connection is open. Returns
    /// `None` if all are taken.
    pub(crate) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.vms).try_acquire_owned().ok()
    }

    /// Waits up to [`MAX_WAIT`] if all descriptors are taken; otherwise as [`take`](Self::take). Callers are served in their
    /// order.
    ///
    /// Cancel safe.
    pub(crate) async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        timeout(MAX_WAIT, Arc::clone(&self.vms).acquire_owned()).await.ok()?.ok()
    }

    /// Takes a descriptor for an optional purpose. Returns `None` if [few are left](Self::are_short).
    pub(crate) fn take_spare(&self) -> Option<OwnedSemaphorePermit> {
        if self.are_short() { None } else { self.take() }
    }

    /// Takes a descriptor for a listener, which is held as long as its VM exists. Returns `None` if a quarter of the
    /// descriptors is in use: with as many connections as listeners, [few would be left](Self::are_short) otherwise.
    pub(crate) fn take_for_listener(&self) -> Option<OwnedSemaphorePermit> {
        if self.vms.available_permits() > self.vms_limit / 4 * 3 { self.take() } else { None }
    }

    /// Reports whether less than a quarter is left, so that idle connections should be closed.
    pub(crate) fn are_short(&self) -> bool {
        self.vms.available_permits() < self.vms_limit / 4
    }

    /// Returns the number of VM descriptors in use, and their limit.
    pub(crate) fn figures(&self) -> (usize, usize) {
        (self.vms_limit.saturating_sub(self.vms.available_permits()), self.vms_limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_all_shares_is_within_the_limit() {
        for limit in [64, 100, 1024, 65_536, 1_000_000] {
            let shares = Descriptors::within(limit);
            let clients = 2 * (shares.clients + OVERFLOW);
            assert!(shares.vms_limit + clients + shares.websockets + OWN <= limit, "{limit}");
            assert!(shares.clients >= 4 && shares.vms_limit >= 16, "{limit}: {shares:?}");
        }
    }

    #[test]
    fn permits_are_returned_and_the_last_quarter_is_not_for_optional_use() {
        let shares = Descriptors::within(64);
        let mut taken: Vec<_> = std::iter::from_fn(|| shares.take_spare()).collect();
        assert!(shares.are_short());
        taken.extend(std::iter::from_fn(|| shares.take()));
        assert_eq!(taken.len(), shares.vms_limit);
        taken.clear();
        taken.extend(std::iter::from_fn(|| shares.take_for_listener()));
        assert_eq!(taken.len(), shares.vms_limit - shares.vms_limit / 4 * 3);
        taken.clear();
        assert!(!shares.are_short());
        assert_eq!(shares.figures().0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_gets_the_next_descriptor_that_is_returned_or_none_after_the_longest_wait() {
        let shares = Descriptors::within(64);
        let mut taken: Vec<_> = std::iter::from_fn(|| shares.take()).collect();
        assert!(shares.acquire().await.is_none());
        let (waited, ()) = tokio::join!(shares.acquire(), async { drop(taken.pop()) });
        assert!(waited.is_some());
    }
}
