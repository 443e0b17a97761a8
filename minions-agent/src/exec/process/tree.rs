//! A program and everything that it started.

use super::cgroup::Cgroup;
use super::group;
use rustix::process::{Pid, Signal, kill_process_group};

/// Killed when it is dropped, unless it was [released](Self::release): nobody would watch over it.
///
/// The process group, which what it started is in unless it went away, and the control group, which
/// nothing can leave.
#[derive(Debug)]
pub(super) struct Tree {
    /// `None` once the program has been waited for: its number may be somebody else's then.
    group: Option<Pid>,
    cgroup: Option<Cgroup>,
}

impl Tree {
    pub(super) fn new(group: Pid, cgroup: Option<Cgroup>) -> Self {
        Self { group: Some(group), cgroup }
    }

    /// As a terminal sends one: to the process group.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // An error means that there is nobody left.
            let _ = kill_process_group(group, signal);
        }
    }

    /// To everybody.
    pub(super) fn signal_all(&self, signal: Signal) {
        match &self.cgroup {
            Some(cgroup) => cgroup.signal(signal),
            None => self.signal(signal),
        }
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => cgroup.is_alive(),
            None => self.group.is_some_and(group::is_alive),
        }
    }

    /// The program has been waited for. What it left behind may stay.
    pub(super) fn release(&mut self) -> Option<Cgroup> {
        self.group = None;
        self.cgroup.take()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.group.is_some() {
            self.kill();
        }
    }
}
