//! Memory for what guests say, over all VMs.
//!
//! A reply may be as long as a frame, a collected output as its caller asks for, and there may be many
//! of both; together they get no more than this. Short ones cost nothing: what one connection may hold
//! anyway is [`FREE`].
//!
//! Output waits for others to be read to their end, stopped by the program's own full pipe, and is
//! given up if that takes long. A reply can't wait, because its deadline runs: it is given up at once.

use crate::agent::CallError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// For everything under way (256 MiB). While a result is being sent there is a second copy of it, as
/// JSON.
const TOTAL: usize = 256 * 1024 * 1024;

/// What is taken at a time.
const STEP: usize = 64 * 1024;

/// What a connection may hold of its guest's without asking: nearly every reply is shorter.
pub(crate) const FREE: usize = 64 * 1024;

/// How long a program waits for others.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The budget. A cheap clone; a permit is a byte.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL)))
    }
}

impl Budget {
    /// A share of nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { budget: Arc::clone(&self.0), permit: None, taken: 0 }
    }

    /// Bytes that are given out.
    pub(crate) fn used(&self) -> usize {
        TOTAL.saturating_sub(self.0.available_permits())
    }
}

/// What one result, or one connection, has of it. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    taken: usize,
}

impl Share {
    /// Whether it has nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.permit = None;
        self.taken = 0;
    }

    /// Grows to at least `bytes`; others are waited for.
    ///
    /// Cancel safe: what was taken until then stays taken.
    ///
    /// # Errors
    ///
    /// [`CallError::NoRoom`].
    pub(crate) async fn grow_to(&mut self, bytes: usize) -> Result<(), CallError> {
        while self.taken < bytes {
            let more = Arc::clone(&self.budget).acquire_many_owned(step());
            let Ok(Ok(more)) = timeout(MAX_WAIT, more).await else { return Err(CallError::NoRoom) };
            self.add(more);
        }
        Ok(())
    }

    /// The same without waiting; whether there was room.
    pub(crate) fn try_grow_to(&mut self, bytes: usize) -> bool {
        while self.taken < bytes {
            let Ok(more) = Arc::clone(&self.budget).try_acquire_many_owned(step()) else {
                return false;
            };
            self.add(more);
        }
        true
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        self.taken += STEP;
    }
}

fn step() -> u32 {
    u32::try_from(STEP).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_so_much_for_all_and_it_comes_back() {
        let budget = Budget::default();
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow_to(TOTAL - STEP).await.unwrap();
        second.grow_to(1).await.unwrap();
        assert!(matches!(second.grow_to(STEP + 1).await, Err(CallError::NoRoom)));
        assert!(!second.try_grow_to(STEP + 1));
        second.grow_to(STEP).await.unwrap();
        assert_eq!(budget.used(), TOTAL);
        let (waited, ()) = tokio::join!(second.grow_to(2 * STEP), async { drop(first) });
        waited.unwrap();
        second.release();
        assert_eq!(budget.used(), 0);
    }
}
