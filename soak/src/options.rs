//! Options of a run.

use std::path::PathBuf;
use std::time::Duration;

/// Options of a run, from the command line.
#[derive(Debug, Clone)]
pub struct SoakOptions {
    /// Path of the daemon's program.
    pub minionsd: PathBuf,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Duration of the faults and the calls.
    pub lasts: Duration,
    /// Number of VMs.
    pub vms: usize,
    /// Number of concurrent callers.
    pub callers: usize,
    /// Directory for the curve, the events and the daemon's log.
    pub out: PathBuf,
}
