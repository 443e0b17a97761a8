//! A child process, and everything that it starts.

mod cgroup;
mod group;
pub(super) mod signal;
mod spawn;
mod tree;

pub(super) use cgroup::{Cgroup, Cgroups, kill_leftover};
pub(super) use spawn::{Image, Setup, Step};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};
use tree::Tree;
use wait4::{ResUse, ResourceUsage, Wait4};

/// How often to look whether a tree that was asked to end is gone: nothing tells us.
const LOOK: Duration = Duration::from_millis(10);

/// For killed processes to be gone. Only one in an uninterruptible sleep takes longer.
const REAP: Duration = Duration::from_secs(5);

/// A process that was started, before the runtime watches it.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    tree: Tree,
}

impl Started {
    /// Starts `command` in a session of its own. May block.
    pub(super) fn spawn(command: Command, setup: Setup, cgroups: &Cgroups) -> io::Result<Self> {
        let cgroup = cgroups.make();
        let mut child = spawn::spawn(command, setup, cgroup.as_ref())?;
        let pid = Pid::from_child(&child);
        let tree = Tree::new(pid, cgroup);
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => Ok(Self { child, pid, pidfd, tree }),
            Err(errno) => {
                drop(tree);
                child.wait()?;
                Err(errno.into())
            }
        }
    }
}

/// A running process. Dropping it kills the whole tree.
#[derive(Debug)]
pub(super) struct Process {
    /// `None` once it has been waited for.
    child: Option<Child>,
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    tree: Tree,
    end: Option<ResUse>,
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) status: ExitStatus,
    pub(super) usage: ResourceUsage,
}

impl Process {
    pub(super) fn watch(started: Started) -> io::Result<Self> {
        let Started { child, pid, pidfd, tree } = started;
        let pidfd = crate::watched::watch(pidfd)?;
        Ok(Self { child: Some(child), pid, pidfd, tree, end: None })
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
        if self.child.is_some() {
            // A process's descriptor becomes readable when it ends, and stays so.
            self.pidfd.readable().await?.retain_ready();
            self.end = self.child.take().map(Wait4::wait4).transpose()?;
        }
        let end = self.end.ok_or(io::ErrorKind::NotFound)?;
        Ok(End { status: end.status, usage: end.rusage })
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

    /// What it left behind may stay; the control group that this is in.
    pub(super) fn release(mut self) -> Option<Cgroup> {
        self.tree.release()
    }
}
