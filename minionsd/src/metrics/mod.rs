//! Counters and histograms that are updated as things happen. Everything else in `GET /metrics` is looked up for each
//! request, so that no metrics remain of a VM that is gone.
//!
//! Labels are fixed words of the daemon: states, codes, layers, route templates. Text from guests and callers never
//! becomes a label, except the name of a VM, while the VM exists.

pub(crate) mod histogram;
pub(crate) mod text;

use histogram::Histogram;
use minions_api::ErrorCode;
use minions_api::vm::Failure;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lowest HTTP status that is counted.
const FIRST_STATUS: u16 = 100;
/// Number of statuses that are counted, from [`FIRST_STATUS`] on.
const STATUSES: usize = 500;

/// All counters and histograms of the daemon.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) probes: Histogram,
    /// Times from a VM that becomes ready, or from a changed declaration, to the applied configuration.
    pub(crate) configured: Histogram,
    pub(crate) failed_probes: WordCounter,
    pub(crate) failed_dials: WordCounter,
    pub(crate) problems: WordCounter,
    /// Scans of the socket directory that failed, by reason.
    pub(crate) refused_scans: WordCounter,
    /// Files `*.vsock` in the socket directory whose name is not that of a VM.
    pub(crate) wrong_names: AtomicUsize,
    /// Files in the socket directory that have a VM's name but are not sockets.
    pub(crate) no_sockets: AtomicUsize,
    /// Clients that were turned away because too many were connected.
    pub(crate) shed: AtomicU64,
    routes: Mutex<Vec<Arc<RouteMeter>>>,
}

impl Meters {
    /// Records a probe: its duration and, if it failed, the layer.
    pub(crate) fn probed(&self, took: Duration, failure: Option<Failure>) {
        self.probes.observe(took);
        if let Some(failure) = failure {
            self.failed_probes.count(failure.as_str());
        }
    }

    pub(crate) fn dial_failed(&self, failure: Failure) {
        self.failed_dials.count(failure.as_str());
    }

    pub(crate) fn problem(&self, code: ErrorCode) {
        self.problems.count(code.as_str());
    }

    /// Counts a scan of the socket directory that failed for this reason.
    pub(crate) fn scan_refused(&self, reason: &'static str) {
        self.refused_scans.count(reason);
    }

    /// Adds the meter of a route. Called once per route when the daemon starts.
    pub(crate) fn route(&self, method: &str, template: &str) -> Arc<RouteMeter> {
        let meter = Arc::new(RouteMeter::new(method, template));
        self.lock_routes().push(Arc::clone(&meter));
        meter
    }

    pub(crate) fn routes(&self) -> Vec<Arc<RouteMeter>> {
        self.lock_routes().clone()
    }

    fn lock_routes(&self) -> std::sync::MutexGuard<'_, Vec<Arc<RouteMeter>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts by a fixed word. Counting takes a lock, so it is for rare events only.
#[derive(Debug, Default)]
pub(crate) struct WordCounter(Mutex<BTreeMap<&'static str, u64>>);

impl WordCounter {
    fn count(&self, word: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(word).or_default() += 1;
    }

    pub(crate) fn figures(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Requests of one route.
#[derive(Debug)]
pub(crate) struct RouteMeter {
    pub(crate) method: String,
    pub(crate) template: String,
    /// Time until the head of the response.
    pub(crate) durations: Histogram,
    by_status: Vec<AtomicU64>,
}

impl RouteMeter {
    pub(crate) fn new(method: &str, template: &str) -> Self {
        Self {
            method: method.to_owned(),
            template: template.to_owned(),
            durations: Histogram::default(),
            by_status: (0..STATUSES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(crate) fn served(&self, status: u16, took: Duration) {
        self.durations.observe(took);
        let index = status.checked_sub(FIRST_STATUS).map(usize::from);
        if let Some(count) = index.and_then(|index| self.by_status.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the statuses that occurred, with their counts.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (u16, u64)> {
        let counts = self.by_status.iter().map(|count| count.load(Ordering::Relaxed));
        (FIRST_STATUS..).zip(counts).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_counts_by_status_and_omits_statuses_without_requests() {
        let meter = RouteMeter::new("GET", "/x");
        for status in [200, 503, 200, 7] {
            meter.served(status, Duration::from_micros(1));
        }
        assert_eq!(meter.statuses().collect::<Vec<_>>(), [(200, 2), (503, 1)]);
    }
}
