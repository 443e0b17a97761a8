//! Times since which leases are no longer needed, measured with the monotonic clock.

use minions_api::Timestamp;
use minions_api::pool::Lease;
use minions_declare::{Change, DeclaredState, Plan};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Shortest time for which a lease is kept after a start of the daemon, unless its pool keeps it for less: the clock of a host
/// that has just booted may be wrong.
const KEPT_AFTER_START: Duration = Duration::from_mins(10);

/// Ages of the marks of leases. The clock of the host counts only for the time before this run of the daemon. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub(super) struct LeaseAges(Arc<Mutex<BTreeMap<IpAddr, MarkedLease>>>);

#[derive(Debug, Clone, Copy)]
struct MarkedLease {
    /// The mark in the database.
    mark: Timestamp,
    /// Age of the mark when this run has seen it.
    before: Duration,
    seen: Instant,
}

impl LeaseAges {
    /// Adopts the marks of earlier runs of the daemon. `now` is the host's time.
    pub(super) fn at_start(state: &DeclaredState, now: Timestamp) -> Self {
        let marked = state.leases().iter().filter_map(|lease| {
            let mark = lease.unused_since?;
            let (mark_time, now): (SystemTime, SystemTime) = (mark.0, now.0);
            let most = state.release_after(lease).saturating_sub(KEPT_AFTER_START);
            let before = now.duration_since(mark_time).unwrap_or_default().min(most);
            Some((lease.address, MarkedLease { mark, before, seen: Instant::now() }))
        });
        Self(Arc::new(Mutex::new(marked.collect())))
    }

    fn marks(&self) -> MutexGuard<'_, BTreeMap<IpAddr, MarkedLease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the age of a lease's mark; zero if it has none, or one that is new.
    pub(super) fn of(&self, lease: &Lease) -> Duration {
        let marks = self.marks();
        let known = marks.get(&lease.address).filter(|one| Some(one.mark) == lease.unused_since);
        known.map_or(Duration::ZERO, |one| one.before.saturating_add(one.seen.elapsed()))
    }

    /// Adopts the marks of a plan, and forgets those that the state no longer has.
    pub(super) fn planned(&self, state: &DeclaredState, plan: &Plan) {
        let mut marks = self.marks();
        let is_marked = |address: &IpAddr, one: &MarkedLease| {
            let lease = state.leases().get(*address);
            lease.is_some_and(|lease| lease.unused_since == Some(one.mark))
        };
        marks.retain(|address, one| is_marked(address, one));
        let seen = Instant::now();
        let mut adopt = |lease: &Lease| {
            let Some(mark) = lease.unused_since else { return };
            let new = MarkedLease { mark, before: Duration::ZERO, seen };
            let known = marks.entry(lease.address).or_insert(new);
            if known.mark != mark {
                *known = new;
            }
        };
        state.leases().iter().for_each(&mut adopt);
        for change in &plan.changes {
            if let Change::PutLease(lease) = change {
                adopt(lease);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_api::pool::Pool;
    use minions_declare::{IfRevision, LeaseNeed};

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: u32) -> Timestamp {
        Timestamp(SystemTime::UNIX_EPOCH + HOUR * hours)
    }

    /// Returns a state with one lease, whose VM is gone.
    fn leased() -> DeclaredState {
        let mut state = DeclaredState::default();
        let pool: Pool =
            serde_json::from_str(r#"{"name": "lan", "subnet": "10.0.0.0/24"}"#).unwrap();
        let plan = state.plan_put_pool(pool, IfRevision::Any).unwrap();
        state.commit(&plan);
        let need = LeaseNeed::Pool { interface: String::new(), pool: "lan".into() };
        let plan = state.plan_leases(&"a".parse().unwrap(), &[need]).unwrap();
        state.commit(&plan);
        state
    }

    fn sweep(state: &mut DeclaredState, ages: &LeaseAges, now: Timestamp) -> usize {
        let plan = state.plan_sweep(now, |_| false, |lease| ages.of(lease));
        ages.planned(state, &plan);
        state.commit(&plan);
        state.leases().len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_neither_ends_a_lease_early_nor_keeps_it_longer() {
        let mut state = leased();
        let ages = LeaseAges::at_start(&state, at(1000));
        assert_eq!(sweep(&mut state, &ages, at(1000)), 1, "marked");
        assert_eq!(sweep(&mut state, &ages, at(5000)), 1, "the clock was set forward");
        tokio::time::advance(HOUR - Duration::from_secs(1)).await;
        assert_eq!(sweep(&mut state, &ages, at(5001)), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(sweep(&mut state, &ages, at(1)), 0, "the clock was set back");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_before_a_restart_counts_but_the_lease_stays_some_minutes_after_it() {
        let mut state = leased();
        let ages = LeaseAges::at_start(&state, at(1000));
        assert_eq!(sweep(&mut state, &ages, at(1000)), 1, "marked");
        for (now, left) in [(at(9999), KEPT_AFTER_START), (at(1000), HOUR), (at(1), HOUR)] {
            let mut state = state.clone();
            let ages = LeaseAges::at_start(&state, now);
            tokio::time::advance(left - Duration::from_secs(1)).await;
            assert_eq!(sweep(&mut state, &ages, now), 1, "{now}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(sweep(&mut state, &ages, now), 0, "{now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_mark_of_the_same_address_begins_again() {
        let mut state = leased();
        let ages = LeaseAges::at_start(&state, at(1000));
        sweep(&mut state, &ages, at(1000));
        tokio::time::advance(HOUR / 2).await;
        let used = state.plan_sweep(at(1000), |_| true, |lease| ages.of(lease));
        ages.planned(&state, &used);
        state.commit(&used);
        assert_eq!(sweep(&mut state, &ages, at(1001)), 1, "marked again");
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(sweep(&mut state, &ages, at(1001)), 1);
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(sweep(&mut state, &ages, at(1001)), 0);
    }
}
