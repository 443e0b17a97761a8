//! Memory budget for replies and output of guests, over all VMs.
//!
//! A reply may be as long as a frame, and collected output as long as its caller asks for. The budget limits the sum of
//! them. Replies up to [`FREE`] bytes are not counted.
//!
//! If the budget is used up, collected output waits until other results are finished; meanwhile the program blocks on
//! its full pipe. After [`MAX_WAIT`] the call fails. A reply cannot wait, because its deadline runs: its call fails at
//! once.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Size of the budget (256 MiB). A result that is being sent exists twice, because it is also encoded as JSON.
const TOTAL: usize = 256 * 1024 * 1024;

/// Bytes that are taken at a time.
const STEP: usize = 64 * 1024;

/// Bytes that a connection may hold outside of the budget: nearly every reply is shorter.
pub(crate) const FREE: usize = 64 * 1024;

/// Time that collected output waits for free budget.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The budget is used up.
#[derive(Debug, thiserror::Error)]
#[error("no memory for the program's output")]
pub(crate) struct NoRoom;

/// The budget; one permit is one byte. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Semaphore>);

impl Default for MemoryBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL)))
    }
}

impl MemoryBudget {
    /// Returns an empty share.
    pub(crate) fn share(&self) -> BudgetShare {
        BudgetShare { budget: Arc::clone(&self.0), permit: None, taken: 0 }
    }

    /// Returns the number of bytes in use.
    pub(crate) fn used(&self) -> usize {
        TOTAL.saturating_sub(self.0.available_permits())
    }
}

/// The part of the budget that one result or one connection holds. Returned on drop.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    taken: usize,
}

impl BudgetShare {
    /// Reports whether the share holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Returns everything to the budget.
    pub(crate) fn release(&mut self) {
        self.permit = None;
        self.taken = 0;
    }

    /// Grows the share to at least `bytes`. Waits for free budget, at most [`MAX_WAIT`] for each step.
    ///
    /// Cancel safe: the share keeps the steps that it has taken.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] after [`MAX_WAIT`].
    pub(crate) async fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        while self.taken < bytes {
            let more = Arc::clone(&self.budget).acquire_many_owned(step());
            let Ok(Ok(more)) = timeout(MAX_WAIT, more).await else { return Err(NoRoom) };
            self.add(more);
        }
        Ok(())
    }

    /// Grows the share without waiting; reports whether there was enough free budget.
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
    async fn the_budget_is_shared_and_returned_on_drop() {
        let budget = MemoryBudget::default();
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow_to(TOTAL - STEP).await.unwrap();
        second.grow_to(1).await.unwrap();
        assert!(matches!(second.grow_to(STEP + 1).await, Err(NoRoom)));
        assert!(!second.try_grow_to(STEP + 1));
        second.grow_to(STEP).await.unwrap();
        assert_eq!(budget.used(), TOTAL);
        let (waited, ()) = tokio::join!(second.grow_to(2 * STEP), async { drop(first) });
        waited.unwrap();
        second.release();
        assert_eq!(budget.used(), 0);
    }
}
