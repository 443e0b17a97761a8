//! File descriptors, and who may have how many.
//!
//! A process that has none left can neither accept nor dial, and can't even say so. So they are given
//! out beforehand, by what the kernel allows: VMs get what clients leave, clients what they may, and a
//! few stay for those who come when everything is taken and want to know whether the daemon lives.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Standard streams, the runtime's own, listeners, inotify, signals, logs, and files that are read in
/// passing.
const OWN: usize = 20;

/// Of each listener, for clients that only get to hear that there are too many.
pub(crate) const OVERFLOW: usize = 4;

/// Clients connected at once, over TCP and over Unix apart: nobody who may only use the one shuts out
/// those who may use the other.
const MAX_CLIENTS: usize = 1024;

/// WebSockets open at once. An upgraded connection is no longer one of those above.
const MAX_WEBSOCKETS: usize = 1024;

/// If the kernel sets no limit.
const UNLIMITED: usize = 1024 * 1024;

/// Raises the soft limit to the hard one. Nothing here uses `select(2)`, which is what the soft one is
/// low for.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, "the limit of open files stays as it is");
    }
}

/// The shares. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Descriptors {
    /// Of each listener.
    pub(crate) clients: usize,
    pub(crate) websockets: usize,
    vms: Arc<Semaphore>,
    vms_limit: usize,
}

impl Descriptors {
    /// As the kernel limits this process now.
    pub(crate) fn of_process() -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        Self::within(limit.map_or(UNLIMITED, |limit| limit.try_into().unwrap_or(UNLIMITED)))
    }

    fn within(limit: usize) -> Self {
        let free = limit.min(UNLIMITED).saturating_sub(OWN + 2 * OVERFLOW).max(8);
        let (clients, websockets) = (MAX_CLIENTS.min(free / 8), MAX_WEBSOCKETS.min(free / 8));
        let vms_limit = free - 2 * clients - websockets;
        Self { clients, websockets, vms: Arc::new(Semaphore::new(vms_limit)), vms_limit }
    }

    /// One for a connection to a VM, kept for as long as that is open; `None` if all are taken.
    pub(crate) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.vms).try_acquire_owned().ok()
    }

    /// One for something that a VM can do without; `None` if others may need it.
    pub(crate) fn take_spare(&self) -> Option<OwnedSemaphorePermit> {
        if self.are_short() { None } else { self.take() }
    }

    /// Whether so few are left that nobody should keep one that idles.
    pub(crate) fn are_short(&self) -> bool {
        self.vms.available_permits() < self.vms_limit / 4
    }

    /// Those of VMs that are taken, and how many there are.
    pub(crate) fn figures(&self) -> (usize, usize) {
        (self.vms_limit.saturating_sub(self.vms.available_permits()), self.vms_limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_are_within_the_limit() {
        for limit in [64, 100, 1024, 65_536, 1_000_000] {
            let shares = Descriptors::within(limit);
            let clients = 2 * (shares.clients + OVERFLOW);
            assert!(shares.vms_limit + clients + shares.websockets + OWN <= limit, "{limit}");
            assert!(shares.clients >= 4 && shares.vms_limit >= 16, "{limit}: {shares:?}");
        }
    }

    #[test]
    fn what_is_taken_comes_back_and_the_last_quarter_is_not_for_luxury() {
        let shares = Descriptors::within(64);
        let mut taken: Vec<_> = std::iter::from_fn(|| shares.take_spare()).collect();
        assert!(shares.are_short());
        taken.extend(std::iter::from_fn(|| shares.take()));
        assert_eq!(taken.len(), shares.vms_limit);
        taken.clear();
        assert!(!shares.are_short());
        assert_eq!(shares.figures().0, 0);
    }
}
