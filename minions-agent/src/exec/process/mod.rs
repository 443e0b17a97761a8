//! A child process, and everything that it starts.

mod cgroup;
mod group;
pub(super) mod signal;
mod spawn;
mod tree;

pub use cgroup::ProgramGroups;
pub(super) use cgroup::{Cgroup, Cgroups, Limits, Owner, Record};
pub(super) use spawn::{Image, Setup, Step, Streams, Used};

use rustix::process::{Pid, Signal};
use spawn::Spawned;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};
use tree::Tree;

/// How often to look whether a tree that was asked to end is gone: nothing tells us.
const LOOK: Duration = Duration::from_millis(10);

/// For killed processes to be gone. Only one in an uninterruptible sleep takes longer.
const REAP: Duration = Duration::from_secs(5);

/// A process that was started, before the runtime watches it.
#[derive(Debug)]
pub(super) struct Started {
    spawned: Spawned,
    tree: Tree,
}

impl Started {
    /// Starts what `setup` says in a session of its own and in `cgroup`, where the next agent finds it
    /// as `record`. May block.
    ///
    /// `confined` is whether it must not run outside of `cgroup`.
    pub(super) fn spawn(
        setup: &Setup,
        cgroup: Option<Cgroup>,
        mut record: Record,
        confined: bool,
    ) -> io::Result<Self> {
        let spawned = spawn::spawn(setup, cgroup.as_ref(), confined)?;
        if let Some(cgroup) = &cgroup {
            record.pid = spawned.pid.as_raw_nonzero().get().unsigned_abs();
            cgroup.label(&record);
        }
        let tree = Tree::new(spawned.pid, cgroup);
        Ok(Self { spawned, tree })
    }
}

/// A running process. Dropping it kills the whole tree.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    tree: Tree,
    /// Once it has been waited for.
    end: Option<End>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) status: ExitStatus,
    pub(super) used: Used,
    /// Whether the kernel killed it, or a process that it started, for want of memory.
    pub(super) out_of_memory: bool,
}

impl Process {
    pub(super) fn watch(started: Started) -> io::Result<Self> {
        let Started { spawned: Spawned { pid, pidfd }, tree } = started;
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
    pub(super) async fn wait(&mut self) -> io::Result<End> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        // A process's descriptor becomes readable when it ends, and stays so.
        self.pidfd.readable().await?.retain_ready();
        let (status, used) = spawn::wait(self.pid)?;
        let out_of_memory = self.tree.oom_kills() > 0;
        Ok(*self.end.insert(End { status, used, out_of_memory }))
    }

    /// Ends the tree: TERM, up to `grace` for all of it to go, KILL to what is left. A terminal's
    /// session is hung up on, too: interactive shells don't heed TERM.
    pub(super) async fn terminate(&mut self, grace: Duration, terminal: bool) -> io::Result<End> {
        let deadline = Instant::now() + grace;
        if terminal {
            self.tree.signal_all(Signal::HUP);
        }
        self.tree.signal_all(Signal::TERM);
        // What is stopped can't even end.
        self.tree.signal_all(Signal::CONT);
        // Late: it is killed with the rest below.
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

    /// What it left behind may stay. Its control group, if something runs in it, or else if nothing does.
    pub(super) fn release(mut self) -> (Option<Cgroup>, Option<Cgroup>) {
        match self.tree.release() {
            Some(cgroup) if cgroup.is_alive() => (Some(cgroup), None),
            empty => (None, empty),
        }
    }
}
