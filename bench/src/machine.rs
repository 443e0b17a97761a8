//! The machine that the benchmarks run on.

use std::{fs, thread};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Needed descriptors: 5,000 VMs, with a socket each and one or two connections at either end of it.
const DESCRIPTORS: u64 = 20_000;

/// Raises the limit of descriptors to the need of the largest benchmark, for this process and all that it starts
/// from now on.
pub(crate) fn allow_many_descriptors() -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= DESCRIPTORS) {
        return Ok(());
    }
    let raised = |maximum| Rlimit { current: Some(DESCRIPTORS), maximum };
    let may_raise = maximum.is_none_or(|maximum| maximum >= DESCRIPTORS);
    let wanted = raised(if may_raise { maximum } else { Some(DESCRIPTORS) });
    setrlimit(Resource::Nofile, wanted)
        .with_context(|| format!("{DESCRIPTORS} open files are needed (ulimit -n)"))
}

/// Describes cores, memory and load, as far as needed to judge a figure.
pub(crate) fn described() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 =
        total.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = averages.split_whitespace().next().unwrap_or("?");
    format!("{cores} cores, {} GiB, load {load} at the start", kib / (1024 * 1024))
}
