//! Orders: programs that were requested, and the statements that their callers received.

use crate::journal::Journal;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use testkit::fake_vmm::Ledger;
use tokio::time::Instant;

/// Time after the end of a call after which no program of the call can start any more: twice the time in which the
/// daemon re-attaches to a program.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// Statement to a caller about its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecutionClaim {
    /// The program ran.
    Ran,
    /// The program may have run.
    Perhaps,
    /// The program has not run, and will not run.
    Not,
}

impl ExecutionClaim {
    /// Combines the statements to two callers of the same program.
    pub(super) fn either(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ran, _) | (_, Self::Ran) => Self::Ran,
            (Self::Perhaps, _) | (_, Self::Perhaps) => Self::Perhaps,
            (Self::Not, Self::Not) => Self::Not,
        }
    }
}

/// Number of calls that request the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requests {
    /// Single call. The program must not run twice, not even in different lives of the guest's agent.
    One,
    /// Pair of calls with the same id. Only one life of the agent knows the id: if the agent is restarted between the
    /// two calls, both of them run the program.
    Two,
}

/// All orders of a run.
#[derive(Debug)]
pub(super) struct OrderBook {
    ledger: Arc<Ledger>,
    next: AtomicU64,
    told: Mutex<VecDeque<(Instant, u64, ExecutionClaim, Requests)>>,
}

impl OrderBook {
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, next: AtomicU64::new(1), told: Mutex::default() }
    }

    /// Opens a new order for this VM.
    pub(super) fn open(&self, vm: &str) -> u64 {
        let order = self.next.fetch_add(1, Ordering::SeqCst);
        self.ledger.open(order, vm);
        order
    }

    /// Records the end of a call. The statement is checked now as far as possible, and again when the order is settled.
    pub(super) fn told(
        &self,
        order: u64,
        told: ExecutionClaim,
        requests: Requests,
        journal: &Journal,
    ) {
        self.check(order, told, requests, journal);
        let mut waiting = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back((Instant::now(), order, told, requests));
    }

    /// Checks and closes the orders that are old enough.
    pub(super) fn settle(&self, journal: &Journal) {
        self.settle_older_than(SETTLED_AFTER, journal);
    }

    /// Checks and closes all orders.
    pub(super) fn settle_all(&self, journal: &Journal) {
        self.settle_older_than(Duration::ZERO, journal);
    }

    fn settle_older_than(&self, age: Duration, journal: &Journal) {
        loop {
            let mut waiting = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(&(at, order, told, requests)) = waiting.front() else { break };
            if at.elapsed() < age {
                break;
            }
            waiting.pop_front();
            drop(waiting);
            self.check(order, told, requests, journal);
            self.ledger.close(order);
        }
        for stranger in self.ledger.strangers() {
            journal.violation(stranger);
        }
    }

    fn check(&self, order: u64, told: ExecutionClaim, requests: Requests, journal: &Journal) {
        let Some(runs) = self.ledger.runs(order) else {
            return journal.violation(format!("order {order} is not in the ledger"));
        };
        let is_repeated = match requests {
            Requests::One => runs.there > 1,
            Requests::Two => runs.there > 2 || runs.is_repeated_within_a_life(),
        };
        let wrong = match (told, runs.there) {
            _ if runs.elsewhere > 0 => "ran in another VM",
            _ if is_repeated => "ran twice",
            (ExecutionClaim::Ran, 0) => "did not run, but its caller was told that it did",
            (ExecutionClaim::Not, 1) => "ran, but its caller was told that it did not",
            _ => return,
        };
        journal.violation(format!("order {order} {wrong}: {runs:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of violations if the caller received the statement `told`, and the order ran in these guests.
    fn verdict(told: ExecutionClaim, ran_in: &[&str]) -> u64 {
        let runs: Vec<_> = ran_in.iter().map(|guest| (*guest, 1)).collect();
        verdict_in_lives(told, Requests::One, &runs)
    }

    /// Returns the number of violations, as `verdict`, for an order that ran in these lives of the guests' agents.
    fn verdict_in_lives(told: ExecutionClaim, requests: Requests, runs: &[(&str, u64)]) -> u64 {
        let (ledger, journal) = (Arc::new(Ledger::default()), Journal::default());
        let orders = OrderBook::new(Arc::clone(&ledger));
        let order = orders.open("a");
        for (guest, life) in runs {
            ledger.ran(&order.to_string(), guest, *life);
        }
        orders.told(order, told, requests, &journal);
        journal.violation_count()
    }

    #[tokio::test]
    async fn lost_repeated_and_misdirected_programs_are_violations() {
        assert_eq!(verdict(ExecutionClaim::Ran, &["a"]), 0);
        assert_eq!(
            verdict(ExecutionClaim::Perhaps, &["a"]) + verdict(ExecutionClaim::Perhaps, &[]),
            0
        );
        assert_eq!(verdict(ExecutionClaim::Not, &[]), 0);
        assert_eq!(verdict(ExecutionClaim::Ran, &[]), 1);
        assert_eq!(verdict(ExecutionClaim::Not, &["a"]), 1);
        assert_eq!(verdict(ExecutionClaim::Ran, &["a", "a"]), 1);
        assert_eq!(verdict(ExecutionClaim::Perhaps, &["b"]), 1);
    }

    #[tokio::test]
    async fn two_calls_with_one_id_run_once_in_each_life_of_the_agent() {
        let verdict = |requests, runs| verdict_in_lives(ExecutionClaim::Ran, requests, runs);
        assert_eq!(verdict(Requests::Two, &[("a", 1), ("a", 2)]), 0);
        assert_eq!(verdict(Requests::Two, &[("a", 1), ("a", 1)]), 1);
        assert_eq!(verdict(Requests::Two, &[("a", 1), ("a", 2), ("a", 3)]), 1);
        assert_eq!(verdict(Requests::One, &[("a", 1), ("a", 2)]), 1);
    }

    #[tokio::test]
    async fn a_run_after_the_order_was_settled_is_a_violation() {
        let (ledger, journal) = (Arc::new(Ledger::default()), Journal::default());
        let orders = OrderBook::new(Arc::clone(&ledger));
        let order = orders.open("a");
        orders.told(order, ExecutionClaim::Perhaps, Requests::One, &journal);
        orders.settle_all(&journal);
        ledger.ran(&order.to_string(), "a", 1);
        orders.settle_all(&journal);
        assert_eq!(journal.violation_count(), 1);
    }
}
