//! Memory and descriptors of the daemon over time.

use crate::daemon::{DaemonProcess, ResourceUsage};
use crate::error::SoakError;
use crate::journal::Journal;
use crate::state::SoakState;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Number of samples (one each second) that are required to check the growth.
const SHAPELY: usize = 120;

/// Permitted growth of memory from the second quarter of a run to the last, in addition to a tenth.
const RSS_SLACK_KIB: u64 = 4 * 1024;

/// Permitted growth of the number of descriptors, in addition to a tenth.
const FD_SLACK: u64 = 32;

/// Limit of resident memory in a run of any length: for each VM, and for everything else.
const RSS_KIB_PER_VM: u64 = 256;
const RSS_KIB: u64 = 96 * 1024;

/// Limit of descriptors in a run of any length: connections for each VM (a pool of 8 and the supervisor's;
/// streams come and go), and everything else (callers, listeners, the runtime).
const FDS_PER_VM: u64 = 12;
const FDS: u64 = 256;

/// Samples of the daemon's resources, one each second.
#[derive(Debug, Default)]
pub struct ResourceCurve {
    samples: Vec<ResourceSample>,
}

#[derive(Debug, Clone, Copy)]
struct ResourceSample {
    seconds: f64,
    calls: u64,
    cost: ResourceUsage,
}

impl ResourceCurve {
    pub(super) fn take(&mut self, daemon: &mut DaemonProcess, world: &SoakState, at: Duration) {
        if let Some(cost) = daemon.cost(&world.journal) {
            let calls = world.calls.load(Ordering::Relaxed);
            self.samples.push(ResourceSample { seconds: at.as_secs_f64(), calls, cost });
        }
    }

    /// Checks the peaks and, if the run was long enough, the growth.
    pub(super) fn judge(&self, vms: usize, journal: &Journal) {
        let vms = vms as u64;
        for (what, of, most, slack) in [
            (
                "memory (KiB)",
                rss as fn(&ResourceSample) -> u64,
                RSS_KIB + vms * RSS_KIB_PER_VM,
                RSS_SLACK_KIB,
            ),
            ("descriptors", fds, FDS + vms * FDS_PER_VM, FD_SLACK),
        ] {
            let peak = self.samples.iter().map(of).max().unwrap_or(0);
            if peak > most {
                journal.violation(format!("{what}: the peak {peak} exceeds the limit {most}"));
            }
            let (before, after) = (self.median(1, of), self.median(3, of));
            if self.samples.len() >= SHAPELY && after > before + before / 10 + slack {
                journal.violation(format!("{what} grew from {before} to {after}"));
            }
        }
    }

    /// Returns the median of one quarter of the run.
    fn median(&self, quarter: usize, of: fn(&ResourceSample) -> u64) -> u64 {
        let len = self.samples.len();
        let part = &self.samples[len * quarter / 4..len * (quarter + 1) / 4];
        let mut values: Vec<_> = part.iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    }

    /// Returns figures of the curve as JSON.
    #[must_use]
    pub fn summary(&self) -> Value {
        let of = |of: fn(&ResourceSample) -> u64| {
            let quarters = [0, 1, 2, 3].map(|quarter| self.median(quarter, of));
            json!({
                "first": self.samples.first().map(of),
                "median_by_quarter": quarters,
                "peak": self.samples.iter().map(of).max(),
                "last": self.samples.last().map(of),
            })
        };
        json!({ "rss_kib": of(rss), "fds": of(fds), "samples": self.samples.len() })
    }

    /// Writes `curve.csv`.
    pub(super) fn write(&self, out: &Path) -> Result<(), SoakError> {
        let mut csv = String::from("seconds,calls,rss_kib,fds,threads\n");
        for ResourceSample { seconds, calls, cost: ResourceUsage { rss_kib, fds, threads } } in
            &self.samples
        {
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{seconds:.1},{calls},{rss_kib},{fds},{threads}");
        }
        std::fs::write(out.join("curve.csv"), csv).map_err(SoakError::io("cannot write curve.csv"))
    }
}

fn rss(sample: &ResourceSample) -> u64 {
    sample.cost.rss_kib
}

fn fds(sample: &ResourceSample) -> u64 {
    sample.cost.fds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rss_kib: impl Fn(u64) -> u64, samples: u64) -> u64 {
        let sample = |n: u64| {
            let cost = ResourceUsage { rss_kib: rss_kib(n), fds: 100, threads: 4 };
            ResourceSample { seconds: 0.0, calls: n, cost }
        };
        let (curve, journal) =
            (ResourceCurve { samples: (0..samples).map(sample).collect() }, Journal::default());
        curve.judge(10, &journal);
        journal.violation_count()
    }

    #[tokio::test]
    async fn a_slow_leak_is_a_violation() {
        assert_eq!(verdict(|_| 20_000, 1200), 0);
        assert_eq!(verdict(|n| 20_000 + n * 15, 1200), 1, "15 KiB a second");
        assert_eq!(verdict(|n| 20_000 + n * 15, 15), 0, "too short to tell");
        assert_eq!(verdict(|n| if n == 7 { 1_000_000 } else { 20_000 }, 1200), 1, "a spike");
    }
}
