//! Child process of the agent, with all processes that it starts.

mod cgroup;
mod child;
mod clone;
mod group;
mod proc_stat;
mod setup;
pub(super) mod signal;
mod spawn;
mod step;
mod tree;
mod wait;

pub use cgroup::ProgramGroups;
pub(super) use cgroup::{AgentProcess, Cgroup, CgroupFactory, Limits, ProgramRecord};
pub(super) use setup::{ProgramImage, ProgramStreams, SpawnSetup};
pub(super) use step::{SpawnError, SpawnStep};
pub(super) use wait::ProcessUsage;

use rustix::process::{Pid, Signal};
use spawn::SpawnedProcess;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};
use tree::ProcessTree;

/// Poll interval while waiting for a process tree to end: there is no notification.
const LOOK: Duration = Duration::from_millis(10);

/// Longest wait for killed processes to end. Only a process in an uninterruptible sleep takes longer.
const REAP: Duration = Duration::from_secs(5);

/// A started process that the runtime does not watch yet.
#[derive(Debug)]
pub(super) struct StartedProcess {
    spawned: SpawnedProcess,
    tree: ProcessTree,
}

impl StartedProcess {
    /// Starts the program of `setup` in a new session and in `cgroup`, and labels the group with `record` for the
    /// next agent. May block.
    ///
    /// If `confined`, the program must not run outside of `cgroup`.
    pub(super) fn spawn(
        setup: &SpawnSetup,
        cgroup: Option<Cgroup>,
        mut record: ProgramRecord,
        confined: bool,
    ) -> Result<Self, SpawnError> {
        let spawned = spawn::spawn(setup, cgroup.as_ref(), confined)?;
        if let Some(cgroup) = &cgroup {
            record.pid = spawned.pid.as_raw_nonzero().get().unsigned_abs();
            cgroup.label(&record);
        }
        let tree = ProcessTree::new(spawned.pid, cgroup);
        Ok(Self { spawned, tree })
    }
}

/// A running process. Dropping it kills the whole tree.
#[derive(Debug)]
pub(super) struct RunningProcess {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    tree: ProcessTree,
    /// Result of waiting, once the process has been reaped.
    end: Option<ProcessEnd>,
}

/// Exit status and resource usage of a process that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessEnd {
    pub(super) status: ExitStatus,
    pub(super) used: ProcessUsage,
    /// True if the kernel's OOM killer ended the process, or one that it started.
    pub(super) out_of_memory: bool,
}

impl RunningProcess {
    pub(super) fn watch(started: StartedProcess) -> io::Result<Self> {
        let StartedProcess { spawned: SpawnedProcess { pid, pidfd }, tree } = started;
        let pidfd = crate::watched::watch(pidfd)?;
        Ok(Self { pid, pidfd, tree, end: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.tree.signal(signal);
    }

    /// Waits for the process to end, and reaps it.
    ///
    /// Cancel safe.
    pub(super) async fn wait(&mut self) -> io::Result<ProcessEnd> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        // A pidfd becomes readable when its process ends, and stays readable.
        self.pidfd.readable().await?.retain_ready();
        let (status, used) = wait::wait(self.pid)?;
        let out_of_memory = self.tree.oom_kills() > 0;
        Ok(*self.end.insert(ProcessEnd { status, used, out_of_memory }))
    }

    /// Ends the tree: sends TERM, waits up to `grace` for all processes to end, and kills the rest. With a
    /// terminal, it sends HUP first: interactive shells ignore TERM.
    pub(super) async fn terminate(
        &mut self,
        grace: Duration,
        terminal: bool,
    ) -> io::Result<ProcessEnd> {
        let deadline = Instant::now() + grace;
        if terminal {
            self.tree.signal_all(Signal::HUP);
        }
        self.tree.signal_all(Signal::TERM);
        // A stopped process does not handle TERM before it is continued.
        self.tree.signal_all(Signal::CONT);
        // After the deadline, it is killed with the rest below.
        let _ = timeout_at(deadline, self.wait()).await;
        while self.tree.is_alive() {
            if Instant::now() >= deadline {
                self.tree.kill();
                break;
            }
            sleep(LOOK).await;
        }
        let end = self.wait().await?;
        let patience = Instant::now() + REAP;
        while self.tree.is_alive() && Instant::now() < patience {
            sleep(LOOK).await;
        }
        Ok(end)
    }

    /// Stops tracking the tree without killing leftover processes. Returns the control group: first if processes
    /// run in it, second if it is empty.
    pub(super) fn release(mut self) -> (Option<Cgroup>, Option<Cgroup>) {
        let Some(mut cgroup) = self.tree.release() else { return (None, None) };
        let was_killed = self.end.is_none_or(|end| end.status.signal() == Some(libc::SIGKILL));
        if cgroup.ends_empty(was_killed) {
            (None, Some(cgroup))
        } else {
            (Some(cgroup.without_descriptor()), None)
        }
    }
}
