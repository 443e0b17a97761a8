//! A program and everything that it started.

use super::cgroup::Cgroup;
use super::group;
use rustix::process::{Pid, Signal, kill_process_group};

/// Killed when it is dropped, unless it was [released](Self::release): nobody would watch over it.
///
/// The process group, which what it started is in unless it went away, and the control group, which
/// only root can leave: `su` does, where every login gets a session of its own. Neither holds all of
/// it for sure, so the program is over when both are empty.
#[derive(Debug)]
pub(super) struct Tree {
    /// `None` once nobody is in it: its number may be somebody else's then.
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

    /// To everybody, once.
    pub(super) fn signal_all(&self, signal: Signal) {
        let told = self.cgroup.as_ref().map(|cgroup| cgroup.signal(signal)).unwrap_or_default();
        if self.group.is_some_and(|group| !told.contains(&group)) {
            self.signal(signal);
        }
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        self.cgroup.as_ref().map_or(0, Cgroup::oom_kills)
    }

    /// Whether anything runs, zombies not counted.
    pub(super) fn is_alive(&mut self) -> bool {
        self.group = self.group.filter(|group| group::is_alive(*group));
        self.group.is_some() || self.cgroup.as_ref().is_some_and(Cgroup::is_alive)
    }

    /// The program has been waited for. What it left behind may stay, and is in what this returns.
    pub(super) fn release(&mut self) -> Option<Cgroup> {
        self.group = None;
        self.cgroup.take()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.group.is_some() || self.cgroup.is_some() {
            self.kill();
        }
    }
}
