//! Counter of the handshakes that are in progress at the same time, across all fakes that share it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counter of handshakes, each from CONNECT to OK.
#[derive(Debug, Default)]
pub struct HandshakeCounter {
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl HandshakeCounter {
    /// Returns the largest number of simultaneous handshakes so far.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Begins a handshake, which ends when the returned guard is dropped.
    pub(super) fn begin(&self) -> HandshakeGuard<'_> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        HandshakeGuard(self)
    }
}

pub(super) struct HandshakeGuard<'a>(&'a HandshakeCounter);

impl Drop for HandshakeGuard<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}
