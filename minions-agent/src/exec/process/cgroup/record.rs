//! What the next agent will want to know of a program, kept with the program's control group.
//!
//! An extended attribute of the group: it is there as long as the group is, and no longer, and needs no file
//! system that can be written to.

use minions_proto::message::{ExecId, OnDisconnect};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// Of the namespace that the kernel has for control groups since 5.7, as it has `clone3` into them.
const NAME: &str = "user.minions.exec";

/// The kernel's limit of a value, in bytes.
const MAX_LEN: usize = 64 * 1024;

/// A program and the agent that started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::exec) struct Record {
    pub(in crate::exec) id: ExecId,
    pub(in crate::exec) command: String,
    pub(in crate::exec) args: Vec<String>,
    pub(in crate::exec) user: Option<String>,
    pub(in crate::exec) tty: bool,
    pub(in crate::exec) on_disconnect: OnDisconnect,
    /// 0 until it is known.
    pub(in crate::exec) pid: u32,
    /// Milliseconds since the guest's boot.
    pub(in crate::exec) started_ms: u64,
    pub(in crate::exec) agent: Owner,
}

/// An agent's process. A number alone may be another process's later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::exec) struct Owner {
    pid: u32,
    /// Clock ticks since the guest's boot (proc(5), field 22 of `stat`).
    started: u64,
}

impl Owner {
    /// This process.
    pub(in crate::exec) fn this() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid).unwrap_or_default() }
    }

    /// Whether the process lives: this one, or another agent at the same place.
    pub(super) fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// The start of a process, in clock ticks since the boot; `None` if it has ended, also if its parent has not waited
/// for it: a small init may never do so.
pub(super) fn started(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    let ended = matches!(stat.state, 'Z' | 'X' | 'x');
    (!ended).then_some(stat.starttime)
}

impl Record {
    pub(super) fn write(&self, group: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        Ok(setxattr(group, NAME, &text, XattrFlags::empty())?)
    }

    /// `None` for a group without one, and for what no agent has written.
    pub(super) fn read(group: &Path) -> Option<Self> {
        let mut text = vec![0; MAX_LEN];
        let len = getxattr(group, NAME, &mut text).ok()?;
        serde_json::from_slice(text.get(..len)?).ok()
    }
}
