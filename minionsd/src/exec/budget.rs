//! Memory for collected output, over all VMs.
//!
//! A single result may be as large as its caller asks for, and there may be many; together they get no
//! more than this. A program that would need more waits for others to be read to their end, stopped
//! by its own full pipe, and is given up if that takes long.

use crate::agent::CallError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// For all results under way (256 MiB). While one is being sent there is a second copy of it, as JSON.
const TOTAL: usize = 256 * 1024 * 1024;

/// What is taken at a time.
const STEP: usize = 64 * 1024;

/// How long a program waits for others.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The budget. A cheap clone; a permit is a byte.
#[derive(Debug, Clone)]
pub(crate) struct OutputBudget(Arc<Semaphore>);

impl Default for OutputBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL)))
    }
}

impl OutputBudget {
    /// A share of nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { budget: Arc::clone(&self.0), permit: None, taken: 0 }
    }
}

/// What one result has of it. Given back when dropped.
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

    /// Grows to at least `bytes`.
    ///
    /// # Errors
    ///
    /// [`CallError::NoRoom`].
    pub(crate) async fn grow_to(&mut self, bytes: usize) -> Result<(), CallError> {
        while self.taken < bytes {
            let step = u32::try_from(STEP).unwrap_or(u32::MAX);
            let more = Arc::clone(&self.budget).acquire_many_owned(step);
            let Ok(Ok(more)) = timeout(MAX_WAIT, more).await else { return Err(CallError::NoRoom) };
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                None => self.permit = Some(more),
            }
            self.taken += STEP;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_so_much_for_all_and_it_comes_back() {
        let budget = OutputBudget::default();
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow_to(TOTAL - STEP).await.unwrap();
        second.grow_to(1).await.unwrap();
        assert!(matches!(second.grow_to(STEP + 1).await, Err(CallError::NoRoom)));
        second.grow_to(STEP).await.unwrap();
        let (waited, ()) = tokio::join!(second.grow_to(2 * STEP), async { drop(first) });
        waited.unwrap();
    }
}
