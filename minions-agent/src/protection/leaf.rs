//! A control group for the agent alone.

use crate::cgroup::{self, CgroupHierarchy};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Group directly below the root of the hierarchy, for an agent that was not started in a group of its own.
const NAME: &str = "minions-agent";

/// Maximum weight; other groups have the default of 100.
const CPU_WEIGHT: &str = "10000";

/// Memory protected from reclaim, in bytes: several times what the agent uses.
const MEMORY_MIN: u64 = 32 * 1024 * 1024;

/// Moves the agent into a group of its own unless it already is in one, and gives that group the maximum CPU
/// weight and protected memory.
pub(super) fn enter() -> io::Result<()> {
    // A guest without control groups is not an error.
    let Some(hierarchy) = CgroupHierarchy::find() else { return Ok(()) };
    let dir = match hierarchy.own().filter(|own| is_ours_alone(own)) {
        // The group of the agent's systemd unit.
        Some(own) => own,
        None => move_to_own(&hierarchy)?,
    };
    let weighted = fs::write(dir.join("cpu.weight"), CPU_WEIGHT);
    fs::write(dir.join("memory.min"), MEMORY_MIN.to_string()).and(weighted)
}

fn is_ours_alone(own: &Path) -> bool {
    fs::read_to_string(own.join("cgroup.procs"))
        .is_ok_and(|processes| processes.trim_end() == std::process::id().to_string())
}

fn move_to_own(hierarchy: &CgroupHierarchy) -> io::Result<PathBuf> {
    cgroup::enable_controllers(hierarchy.root());
    let dir = hierarchy.root().join(NAME);
    cgroup::make(&dir)?;
    fs::write(dir.join("cgroup.procs"), std::process::id().to_string())?;
    Ok(dir)
}
