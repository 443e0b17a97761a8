//! A child process and its group.
//!
//! The group is the child's own, so a signal to it reaches what the child started, unless that
//! moved to another group (a daemon does).

mod group;

use minions_proto::message::Outcome;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Between asking (TERM) and ending (KILL).
const GRACE: Duration = Duration::from_secs(2);

/// How often to look whether a group that was asked to end is gone: nothing tells us.
const LOOK: Duration = Duration::from_millis(20);

/// For a killed child to be reaped. Only one in an uninterruptible sleep takes longer; it is then
/// reaped in the background.
const REAP: Duration = Duration::from_secs(5);

/// A running child. Dropping it kills the whole group; tokio reaps the child.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// `None` once the child has ended by itself: what it left behind may stay.
    group: Option<Pid>,
}

impl Process {
    /// Starts `command`, which makes a process group of its own.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let child = command.kill_on_drop(true).spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(id) = child.id() {
            expose_to_oom_killer(id);
        }
        Ok(Self { child, group })
    }

    /// The pipes, once.
    pub(super) fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for the child to end by itself, and reaps it.
    ///
    /// Cancel safe.
    pub(super) async fn wait(&mut self) -> io::Result<Outcome> {
        let status = self.child.wait().await?;
        self.group = None;
        Ok(outcome(status))
    }

    /// Ends the group: TERM, up to 2 s for all of it to go, KILL to what is left.
    pub(super) async fn terminate(&mut self) {
        let Some(group) = self.group else { return };
        // An error means that there is nobody left to signal.
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        let _ = timeout_at(deadline, self.child.wait()).await;
        while group::is_alive(group) {
            if Instant::now() >= deadline {
                let _ = kill_process_group(group, Signal::KILL);
                break;
            }
            sleep(LOOK).await;
        }
        if timeout(REAP, self.child.wait()).await.is_ok() {
            self.group = None;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The agent's unit keeps the kernel from choosing the agent when memory runs out, and a child
/// inherits that. A program that eats all memory must be the one that goes.
fn expose_to_oom_killer(pid: u32) {
    let score = format!("/proc/{pid}/oom_score_adj");
    let is_spared = fs::read_to_string(&score).is_ok_and(|score| score.starts_with('-'));
    if is_spared {
        // Only who has ended in between can't be changed any more.
        let _ = fs::write(score, "0");
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exited { code },
        (None, Some(signal)) => Outcome::Signaled { signal, core: status.core_dumped() },
        (None, None) => unreachable!("waiting reports an exit or a signal, never a stop"),
    }
}
