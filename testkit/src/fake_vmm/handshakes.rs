//! How many handshakes are under way at once, over all fakes that share it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts from CONNECT to OK.
#[derive(Debug, Default)]
pub struct Handshakes {
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Handshakes {
    /// The most there ever were at once.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// One begins. It ends when this is dropped.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        UnderWay(self)
    }
}

pub(super) struct UnderWay<'a>(&'a Handshakes);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}
