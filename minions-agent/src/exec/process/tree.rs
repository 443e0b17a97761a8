//! A program and all processes that it started.

use super::cgroup::Cgroup;
use super::group;
use rustix::process::{Pid, Signal, kill_process_group};

/// All processes of a program. Killed when dropped, unless [released](Self::release).
///
/// They are found by the process group, which any process can leave, and by the control group, which only root's
/// processes can leave (`su` does, in guests where each login gets its own session). Neither is sure to hold
/// all processes, so the tree has ended only when both are empty.
#[derive(Debug)]
pub(super) struct ProcessTree {
    /// `None` once the process group is empty: its number may then be reused.
    group: Option<Pid>,
    cgroup: Option<Cgroup>,
}

impl ProcessTree {
    pub(super) fn new(group: Pid, cgroup: Option<Cgroup>) -> Self {
        Self { group: Some(group), cgroup }
    }

    /// Sends a signal to the process group, as a terminal does.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // An error means that the group is empty.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Sends a signal to every process, once.
    pub(super) fn signal_all(&self, signal: Signal) {
        let signalled =
            self.cgroup.as_ref().map(|cgroup| cgroup.signal(signal)).unwrap_or_default();
        if self.group.is_some_and(|group| !signalled.contains(&group)) {
            self.signal(signal);
        }
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Returns the number of processes that the kernel's OOM killer has ended.
    pub(super) fn oom_kills(&self) -> u64 {
        self.cgroup.as_ref().map_or(0, Cgroup::oom_kills)
    }

    /// Reports whether any process runs; zombies do not count.
    pub(super) fn is_alive(&mut self) -> bool {
        self.group = self.group.filter(|group| group::is_alive(*group));
        self.group.is_some() || self.cgroup.as_ref().is_some_and(Cgroup::is_alive)
    }

    /// Stops tracking the tree, after the program has been reaped. Returns the control group, in which leftover
    /// processes may run.
    pub(super) fn release(&mut self) -> Option<Cgroup> {
        self.group = None;
        self.cgroup.take()
    }
}

impl Drop for ProcessTree {
    fn drop(&mut self) {
        if self.group.is_some() || self.cgroup.is_some() {
            self.kill();
        }
    }
}
