//! Limit of TCP connections per user of the host.
//!
//! ```text
//!  0             half                                      all
//!  ├─ unlimited ──┼─ each user: at most a quarter of all ──┤
//! ```
//!
//! Every user of the host may connect over TCP. Without a limit, one of them could take all slots and lock out the
//! others, including an operator with a token. While at most half of the slots are taken, the kernel is not asked for
//! the user of a connection.

use crate::api::auth::Peer;
use minions_api::service::Identity;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// User id without a limit.
const ROOT: u32 = 0;

/// Counted connections by user. `None` stands for all connections whose user is unknown: those from other hosts, and
/// those that are closed already.
type Counts = HashMap<Option<u32>, usize>;

/// Counter of each user's connections in the second half of the slots.
#[derive(Debug)]
pub(super) struct UserShares {
    /// Slots that are given out before users are counted.
    uncounted: usize,
    /// Counted slots that one user may have.
    limit: usize,
    counted: Arc<Mutex<Counts>>,
}

/// A connection in its user's count until it is dropped; `None` for a connection that is not counted.
#[derive(Debug)]
pub(super) struct CountedConnection(Option<(Arc<Mutex<Counts>>, Option<u32>)>);

impl UserShares {
    /// Creates the counter for a listener with this number of slots.
    pub(super) fn new(places: usize) -> Self {
        Self { uncounted: places / 2, limit: (places / 4).max(1), counted: Arc::default() }
    }

    /// Counts a connection, one of `taken` in total. Returns `None` if its user has reached the limit.
    pub(super) async fn count(&self, peer: &Peer, taken: usize) -> Option<CountedConnection> {
        if taken <= self.uncounted {
            return Some(CountedConnection(None));
        }
        match peer.identity().await {
            Identity::User { uid } => self.count_user(Some(uid)),
            Identity::Unknown | Identity::Token => self.count_user(None),
        }
    }

    fn count_user(&self, uid: Option<u32>) -> Option<CountedConnection> {
        if uid == Some(ROOT) {
            return Some(CountedConnection(None));
        }
        let mut counted = lock(&self.counted);
        let count = counted.entry(uid).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(CountedConnection(Some((Arc::clone(&self.counted), uid))))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let Some((counted, uid)) = &self.0 else { return };
        let mut counted = lock(counted);
        if let Some(count) = counted.get_mut(uid) {
            *count -= 1;
            if *count == 0 {
                counted.remove(uid);
            }
        }
    }
}

/// Locks the counts. The lock is held only for one lookup and update.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_gets_at_most_a_quarter_and_others_keep_their_share() {
        let shares = UserShares::new(16);
        let mut first: Vec<_> = (0..4).map(|_| shares.count_user(Some(7)).unwrap()).collect();
        assert!(shares.count_user(Some(7)).is_none());
        let _unknown: Vec<_> = (0..4).map(|_| shares.count_user(None).unwrap()).collect();
        assert!(shares.count_user(None).is_none());
        assert!(shares.count_user(Some(8)).is_some());
        assert!((0..20).all(|_| shares.count_user(Some(ROOT)).is_some()));
        first.pop();
        assert!(shares.count_user(Some(7)).is_some());
        drop((first, _unknown));
        assert!(lock(&shares.counted).is_empty());
    }

    #[tokio::test]
    async fn users_are_not_looked_up_while_half_of_the_slots_are_free() {
        let shares = UserShares::new(16);
        let peer = Peer::unknown();
        for taken in 0..=8 {
            assert!(shares.count(&peer, taken).await.is_some_and(|counted| counted.0.is_none()));
        }
        assert!(shares.count(&peer, 9).await.is_some_and(|counted| counted.0.is_some()));
    }
}
