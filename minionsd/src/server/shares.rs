//! Parts of the TCP connections that one user of the host may have.
//!
//! ```text
//!  0            half                              all
//!  ├─ for all ──┼─ at most a quarter of all each ──┤
//! ```
//!
//! Every user of the host may connect over TCP, so without a limit one of them could take all places and
//! keep the others out, an operator with a token included. While fewer than half of the places are taken the
//! kernel is not asked whose a connection is.

use crate::api::auth::Peer;
use minions_api::service::Identity;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The user id that has no limit.
const ROOT: u32 = 0;

/// Counted connections by user. `None` stands for all whose user is unknown: from other hosts, or closed
/// already.
type Counts = HashMap<Option<u32>, usize>;

/// Counts the connections of each user among the second half of the places.
#[derive(Debug)]
pub(super) struct UserShares {
    /// Places that may be taken before users are counted.
    uncounted: usize,
    /// Counted places that one user may have.
    limit: usize,
    counted: Arc<Mutex<Counts>>,
}

/// A counted connection. Gives its share back when dropped; one that is not counted has none.
#[derive(Debug)]
pub(super) struct Counted(Option<(Arc<Mutex<Counts>>, Option<u32>)>);

impl UserShares {
    /// The shares of so many places.
    pub(super) fn new(places: usize) -> Self {
        Self { uncounted: places / 2, limit: (places / 4).max(1), counted: Arc::default() }
    }

    /// Counts a connection, one of `taken` in all; `None` if its user has too many.
    pub(super) async fn count(&self, peer: &Peer, taken: usize) -> Option<Counted> {
        if taken <= self.uncounted {
            return Some(Counted(None));
        }
        match peer.identity().await {
            Identity::User { uid } => self.count_user(Some(uid)),
            Identity::Unknown | Identity::Token => self.count_user(None),
        }
    }

    fn count_user(&self, uid: Option<u32>) -> Option<Counted> {
        if uid == Some(ROOT) {
            return Some(Counted(None));
        }
        let mut counted = lock(&self.counted);
        let count = counted.entry(uid).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Counted(Some((Arc::clone(&self.counted), uid))))
    }
}

impl Drop for Counted {
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

/// Held for a look and a step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_at_most_a_quarter_and_others_still_have_theirs() {
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
    async fn users_are_not_looked_up_while_half_of_the_places_are_free() {
        let shares = UserShares::new(16);
        let peer = Peer::unknown();
        for taken in 0..=8 {
            assert!(shares.count(&peer, taken).await.is_some_and(|counted| counted.0.is_none()));
        }
        assert!(shares.count(&peer, 9).await.is_some_and(|counted| counted.0.is_some()));
    }
}
