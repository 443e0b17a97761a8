//! Programs that guests have really run, compared with those that they were asked to run.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum number of unexpected runs that are kept for the report.
const KEPT_STRANGERS: usize = 64;

/// Record shared by all guests. Every order has a unique number; a guest that carries an order out records it
/// here before it answers.
#[derive(Debug, Default)]
pub struct Ledger {
    book: Mutex<LedgerState>,
}

#[derive(Debug, Default)]
struct LedgerState {
    open: HashMap<u64, OrderRuns>,
    strangers: Vec<String>,
}

/// Numbers of runs of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRuns {
    /// Guest that the order is for.
    pub guest: String,
    /// Number of runs by that guest.
    pub there: u32,
    /// Number of runs by other guests.
    pub elsewhere: u32,
    /// Lives of that guest's agent in which the order was run, in order. A life that is there twice ran it twice.
    pub lives: Vec<u64>,
}

impl OrderRuns {
    /// Reports whether one life of the guest's agent ran the order more than once.
    #[must_use]
    pub fn is_repeated_within_a_life(&self) -> bool {
        let mut lives = self.lives.clone();
        lives.sort_unstable();
        lives.dedup();
        lives.len() < self.lives.len()
    }
}

impl Ledger {
    /// Opens an order. A run without an open order is reported by [`Ledger::strangers`].
    pub fn open(&self, order: u64, guest: &str) {
        let runs = OrderRuns { guest: guest.to_owned(), there: 0, elsewhere: 0, lives: Vec::new() };
        self.book().open.insert(order, runs);
    }

    /// Records that `guest`, in this life of its agent, runs the order with the number `order`, if it is a number.
    pub fn ran(&self, order: &str, guest: &str, life: u64) {
        let mut book = self.book();
        let LedgerState { open, strangers } = &mut *book;
        match order.parse::<u64>().ok().and_then(|order| open.get_mut(&order)) {
            Some(runs) if runs.guest == guest => {
                runs.there += 1;
                runs.lives.push(life);
            }
            Some(runs) => runs.elsewhere += 1,
            None if strangers.len() < KEPT_STRANGERS => {
                strangers.push(format!("{guest} ran {order:?}, which nobody waits for"));
            }
            None => {}
        }
    }

    /// Returns the runs of an order so far.
    pub fn runs(&self, order: u64) -> Option<OrderRuns> {
        self.book().open.get(&order).cloned()
    }

    /// Closes an order: any later run of it is unexpected.
    pub fn close(&self, order: u64) -> Option<OrderRuns> {
        self.book().open.remove(&order)
    }

    /// Takes the descriptions of unexpected runs since the previous call.
    pub fn strangers(&self) -> Vec<String> {
        std::mem::take(&mut self.book().strangers)
    }

    /// Locks the record. The guard is never held across an await.
    fn book(&self) -> MutexGuard<'_, LedgerState> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_booked_where_it_happened() {
        let ledger = Ledger::default();
        ledger.open(7, "a");
        ledger.ran("7", "a", 1);
        ledger.ran("7", "b", 1);
        assert_eq!(
            ledger.close(7).unwrap(),
            OrderRuns { guest: "a".into(), there: 1, elsewhere: 1, lives: vec![1] }
        );
        ledger.ran("7", "a", 1);
        ledger.ran("x", "a", 1);
        assert_eq!((ledger.strangers().len(), ledger.strangers().len()), (2, 0));
    }
}
