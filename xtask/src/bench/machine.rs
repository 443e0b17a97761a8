//! What is measured on.

use std::{fs, thread};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// 5,000 VMs: a socket each, and a connection or two at either end of it.
const DESCRIPTORS: u64 = 20_000;

/// As many descriptors as the largest bench needs, for everything that is started from here on.
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

/// Cores and memory: enough to judge a figure by.
pub(crate) fn described() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 =
        kib.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    format!("{cores} cores, {} GiB, load {load} at the start", kib / (1024 * 1024))
}
