//! Record of a program for the next agent, stored with the program's control group.
//!
//! The record is an extended attribute of the group: it exists exactly as long as the group, and does not need a
//! writable file system.

use super::super::proc_stat::ProcessStat;
use minions_proto::message::{ExecId, OnDisconnect};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// Name of the attribute. Control groups have the namespace `user.` since kernel 5.7, like `clone3` into a group.
const NAME: &str = "user.minions.exec";

/// Name of the attribute of the groups' parent with the number of the guest's generation.
const GENERATION: &str = "user.minions.generation";

/// The kernel's limit of an attribute's value, in bytes.
const MAX_LEN: usize = 64 * 1024;

/// A program and the agent that started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::exec) struct ProgramRecord {
    pub(in crate::exec) id: ExecId,
    pub(in crate::exec) command: String,
    pub(in crate::exec) args: Vec<String>,
    pub(in crate::exec) user: Option<String>,
    pub(in crate::exec) tty: bool,
    pub(in crate::exec) on_disconnect: OnDisconnect,
    /// Process id; 0 until it is known.
    pub(in crate::exec) pid: u32,
    /// Start time, in milliseconds since the guest's boot.
    pub(in crate::exec) started_ms: u64,
    /// Generation of the guest in which the program was started. Earlier agents did not record it.
    #[serde(default)]
    pub(in crate::exec) generation: u64,
    pub(in crate::exec) agent: AgentProcess,
}

/// Identity of an agent's process: a pid alone may be reused by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::exec) struct AgentProcess {
    pid: u32,
    /// Start time, in clock ticks since the guest's boot (proc(5), field 22 of `stat`).
    started: u64,
}

impl AgentProcess {
    /// Returns the identity of this process.
    pub(in crate::exec) fn this() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid).unwrap_or_default() }
    }

    /// Reports whether that process still runs.
    pub(super) fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// Returns the start time of a process, in clock ticks since the boot. Returns `None` if it has ended, even if its
/// parent has not waited for it: a small init may never do so.
pub(super) fn started(pid: u32) -> Option<u64> {
    ProcessStat::of(pid).filter(|stat| stat.runs()).map(|stat| stat.started)
}

/// Stores the generation of the guest with the parent of the groups.
pub(super) fn write_generation(parent: &Path, generation: u64) -> io::Result<()> {
    Ok(setxattr(parent, GENERATION, generation.to_string().as_bytes(), XattrFlags::empty())?)
}

/// Reads the generation of the guest; `None` if none was stored since its boot.
pub(super) fn read_generation(parent: &Path) -> Option<u64> {
    let mut text = [0; 20];
    let len = getxattr(parent, GENERATION, &mut text).ok()?;
    std::str::from_utf8(text.get(..len)?).ok()?.parse().ok()
}

impl ProgramRecord {
    pub(super) fn write(&self, group: &Path) -> io::Result<()> {
        let text = minions_proto::json::to_vec(self)?;
        Ok(setxattr(group, NAME, &text, XattrFlags::empty())?)
    }

    /// Reads a group's record. Returns `None` without one, and for one that no agent has written.
    pub(super) fn read(group: &Path) -> Option<Self> {
        let mut text = vec![0; MAX_LEN];
        let len = getxattr(group, NAME, &mut text).ok()?;
        serde_json::from_slice(text.get(..len)?).ok()
    }
}
