//! Times of the next attempts, and the number of attempts at the same time.

use minions_api::VmName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Largest number of attempts at the same time that have run for less than [`LONG`].
const MAX_SHORT: usize = 64;

/// Time after which an attempt no longer keeps others from starting: its guest hangs, or waits for its gateway.
const LONG: Duration = Duration::from_secs(2);

/// Largest number of all attempts at the same time.
const MAX_RUNNING: usize = 1024;

/// Largest number of attempts on VMs whose last attempt failed, so that guests that hang delay only each other.
const MAX_FAILING: usize = MAX_SHORT / 2;

/// Pause after the first failure; each further one doubles it.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// Length of a time step. Looks that are due within one step start together, so that VMs share wake-ups.
const STEP: Duration = Duration::from_secs(1);

/// Returns the pause after `failures` in a row. `jitter` is a random number from 0 to 1.
pub(super) fn backoff(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let grown = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    grown.mul_f64(0.75 + jitter / 4.0)
}

/// Returns the end of the step that contains an instant.
pub(super) fn at_step(instant: Instant) -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let into = instant.saturating_duration_since(*START).as_nanos() % STEP.as_nanos();
    let left = (STEP.as_nanos() - into) % STEP.as_nanos();
    instant + Duration::from_nanos(u64::try_from(left).unwrap_or_default())
}

/// VMs that wait for their next attempt.
#[derive(Debug, Default)]
pub(super) struct AttemptSchedule {
    by_time: BTreeSet<(Instant, VmName)>,
    times: BTreeMap<VmName, Instant>,
    running: BTreeMap<VmName, RunningAttempt>,
}

#[derive(Debug)]
struct RunningAttempt {
    started: Instant,
    /// True if the last attempt on the VM failed.
    is_failing: bool,
}

impl AttemptSchedule {
    /// Plans the next attempt on a VM; the earlier time counts.
    pub(super) fn plan(&mut self, vm: &VmName, at: Instant) {
        if self.times.get(vm).is_some_and(|planned| *planned <= at) {
            return;
        }
        self.cancel(vm);
        self.times.insert(vm.clone(), at);
        self.by_time.insert((at, vm.clone()));
    }

    /// Removes the plan for a VM.
    pub(super) fn cancel(&mut self, vm: &VmName) {
        if let Some(at) = self.times.remove(vm) {
            self.by_time.remove(&(at, vm.clone()));
        }
    }

    /// Returns a VM whose attempt is due and may start now, and counts it as running. `is_failing` reports whether its
    /// last attempt failed.
    pub(super) fn start(
        &mut self,
        now: Instant,
        is_failing: impl Fn(&VmName) -> bool,
    ) -> Option<VmName> {
        if self.running.len() >= MAX_RUNNING || self.short(now) >= MAX_SHORT {
            return None;
        }
        let no_failing = self.failing() >= MAX_FAILING;
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, vm)| vm);
        let mut free = due.filter(|vm| !self.is_running(vm));
        let vm = free.find(|vm| !(no_failing && is_failing(vm)))?.clone();
        self.cancel(&vm);
        let attempt = RunningAttempt { started: now, is_failing: is_failing(&vm) };
        self.running.insert(vm.clone(), attempt);
        Some(vm)
    }

    fn short(&self, now: Instant) -> usize {
        self.running.values().filter(|one| one.started + LONG > now).count()
    }

    fn failing(&self) -> usize {
        self.running.values().filter(|one| one.is_failing).count()
    }

    /// Ends the attempt on a VM.
    pub(super) fn ended(&mut self, vm: &VmName) {
        self.running.remove(vm);
    }

    /// Reports whether an attempt on a VM runs.
    pub(super) fn is_running(&self, vm: &VmName) -> bool {
        self.running.contains_key(vm)
    }

    /// Returns the first time after `now` at which an attempt may start: it is due, or another one becomes long. An
    /// attempt that waits for the end of another one needs no timer.
    pub(super) fn next_after(&self, now: Instant) -> Option<Instant> {
        let due = self.by_time.iter().map(|(at, _)| *at).find(|at| *at > now);
        let long = self.running.values().map(|one| one.started + LONG).filter(|at| *at > now).min();
        // Only if the short attempts are what keeps another one from starting.
        let long = long.filter(|_| self.short(now) >= MAX_SHORT);
        due.into_iter().chain(long).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str) -> VmName {
        name.parse().unwrap()
    }

    #[test]
    fn a_vm_has_one_attempt_at_a_time_and_the_earlier_plan_counts() {
        let (mut schedule, now) = (AttemptSchedule::default(), Instant::now());
        let later = now + Duration::from_secs(5);
        schedule.plan(&vm("a"), later);
        assert_eq!(schedule.start(now, |_| false), None);
        assert_eq!(schedule.next_after(now), Some(later));
        schedule.plan(&vm("a"), now);
        schedule.plan(&vm("a"), later);
        assert_eq!(schedule.start(now, |_| false), Some(vm("a")));
        schedule.plan(&vm("a"), now);
        assert_eq!(schedule.start(now, |_| false), None, "its attempt still runs");
        assert_eq!(schedule.next_after(now), None, "the end of the attempt is the signal");
        schedule.ended(&vm("a"));
        assert_eq!(schedule.start(now, |_| false), Some(vm("a")));
        schedule.ended(&vm("a"));
        assert_eq!(schedule.start(later, |_| false), None, "one plan at a time");
    }

    #[test]
    fn vms_that_fail_use_at_most_half_of_the_places() {
        let (mut schedule, now) = (AttemptSchedule::default(), Instant::now());
        let is_failing = |vm: &VmName| vm.as_str().starts_with("bad");
        (0..100).for_each(|at| schedule.plan(&vm(&format!("bad-{at}")), now));
        (0..100).for_each(|at| schedule.plan(&vm(&format!("good-{at}")), now));
        let started: Vec<_> = std::iter::from_fn(|| schedule.start(now, is_failing)).collect();
        let bad = started.iter().filter(|vm| is_failing(vm)).count();
        assert_eq!((started.len(), bad), (MAX_SHORT, MAX_FAILING));
    }

    #[test]
    fn attempts_that_take_long_do_not_keep_others_from_starting() {
        let (mut schedule, now) = (AttemptSchedule::default(), Instant::now());
        (0..200).for_each(|at| schedule.plan(&vm(&format!("vm-{at}")), now));
        let start_all = |schedule: &mut AttemptSchedule, at| {
            std::iter::from_fn(|| schedule.start(at, |_| false)).count()
        };
        assert_eq!(start_all(&mut schedule, now), MAX_SHORT);
        assert_eq!(schedule.next_after(now), Some(now + LONG));
        assert_eq!(start_all(&mut schedule, now + LONG), MAX_SHORT);
    }

    #[test]
    fn the_backoff_doubles_up_to_its_limit() {
        assert_eq!(backoff(1, 1.0), BACKOFF_FIRST);
        assert_eq!(backoff(3, 1.0), BACKOFF_FIRST * 4);
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_MAX);
        assert!(backoff(1, 0.0) >= BACKOFF_FIRST / 2);
    }
}
