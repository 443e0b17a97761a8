//! What guests have really done, against what they were asked to do.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs that nobody asked for, kept for the report.
const KEPT_STRANGERS: usize = 64;

/// One book for all guests. Every order has a number of its own; a guest that carries it out says so
/// here, before it answers.
#[derive(Debug, Default)]
pub struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    open: HashMap<u64, Runs>,
    strangers: Vec<String>,
}

/// How often one order was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// The guest it is for.
    pub guest: String,
    /// By that guest.
    pub there: u32,
    /// By any other.
    pub elsewhere: u32,
}

impl Ledger {
    /// Opens an order. What is carried out without one, or after it was closed, is a stranger.
    pub fn open(&self, order: u64, guest: &str) {
        let runs = Runs { guest: guest.to_owned(), there: 0, elsewhere: 0 };
        self.book().open.insert(order, runs);
    }

    /// `guest` carries out what it takes for an order's number.
    pub fn ran(&self, order: &str, guest: &str) {
        let mut book = self.book();
        let Book { open, strangers } = &mut *book;
        match order.parse::<u64>().ok().and_then(|order| open.get_mut(&order)) {
            Some(runs) if runs.guest == guest => runs.there += 1,
            Some(runs) => runs.elsewhere += 1,
            None if strangers.len() < KEPT_STRANGERS => {
                strangers.push(format!("{guest} ran {order:?}, which nobody waits for"));
            }
            None => {}
        }
    }

    /// How often it was carried out so far.
    pub fn runs(&self, order: u64) -> Option<Runs> {
        self.book().open.get(&order).cloned()
    }

    /// Closes an order: from now on nobody may carry it out.
    pub fn close(&self, order: u64) -> Option<Runs> {
        self.book().open.remove(&order)
    }

    /// The strangers since this was last asked.
    pub fn strangers(&self) -> Vec<String> {
        std::mem::take(&mut self.book().strangers)
    }

    /// Never held over an await.
    fn book(&self) -> MutexGuard<'_, Book> {
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
        ledger.ran("7", "a");
        ledger.ran("7", "b");
        assert_eq!(ledger.close(7).unwrap(), Runs { guest: "a".into(), there: 1, elsewhere: 1 });
        ledger.ran("7", "a");
        ledger.ran("x", "a");
        assert_eq!((ledger.strangers().len(), ledger.strangers().len()), (2, 0));
    }
}
