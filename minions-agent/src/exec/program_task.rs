//! The task that owns a program, from its start to its end.

use super::object::Exec;
use super::pipe::PipeEnd;
use super::process::{self, ProcessEnd, RunningProcess};
use super::pump::StreamPump;
use crate::boot_clock::milliseconds;
use minions_proto::channel::Ended;
use minions_proto::message::{Outcome, SignalReason, Usage};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

/// A started program with its exec and everything needed until its end.
#[derive(Debug)]
pub(super) struct ProgramTask {
    pub(super) exec: Arc<Exec>,
    pub(super) process: RunningProcess,
    pub(super) pump: StreamPump,
    /// The program's terminal, for changes of its size.
    pub(super) terminal: Option<PipeEnd>,
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
}

impl ProgramTask {
    /// Runs the program to its end, and records its outcome in the exec.
    pub(super) async fn run(mut self) {
        let watch = watch(&self.exec, &mut self.process, &self.terminal, self.timeout, self.grace);
        let outcome = self.pump.while_doing(watch).await;
        let wall_ms = milliseconds(self.exec.started.elapsed());
        self.pump.drain().await;
        let ended = match outcome {
            Ok((outcome, end)) => Ended { outcome, usage: usage(&end, wall_ms) },
            Err(error) => {
                let reason = format!("the agent cannot wait for the program: {error}");
                let usage = Usage { wall_ms, ..Usage::default() };
                Ended { outcome: Outcome::Lost { reason }, usage }
            }
        };
        let (left, empty) = self.process.release();
        self.exec.finish(ended, left);
        // Let the client's stream run first: preparing a control group for another program takes time.
        yield_now().await;
        drop(empty);
    }
}

/// Waits for the end, and carries out orders. Ends the program at its time limit, or when ordered to.
async fn watch(
    exec: &Exec,
    process: &mut RunningProcess,
    terminal: &Option<PipeEnd>,
    timeout: Option<Duration>,
    grace: Duration,
) -> io::Result<(Outcome, ProcessEnd)> {
    // A limit beyond the clock's range never applies.
    let deadline = timeout.and_then(|timeout| exec.started.checked_add(timeout));
    loop {
        let orders = exec.take_orders();
        for signal in orders.signals {
            process.signal(process::signal::of(signal));
        }
        if let (Some((rows, cols)), Some(terminal)) = (orders.size, terminal) {
            // Fails once no process has the terminal open.
            let _ = terminal.resize(rows, cols);
        }
        if orders.end {
            exec.request_end();
            let end = process.terminate(grace, terminal.is_some()).await?;
            return Ok((outcome(&end), end));
        }
        tokio::select! {
            end = process.wait() => {
                let end = end?;
                return Ok((outcome(&end), end));
            }
            () = exec.ordered.notified() => {}
            () = reached(deadline) => {
                exec.request_end();
                let end = process.terminate(grace, terminal.is_some()).await?;
                return Ok((Outcome::TimedOut, end));
            }
        }
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn outcome(end: &ProcessEnd) -> Outcome {
    let status = end.status;
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exited { code },
        (None, Some(signal)) => {
            let is_killer = signal == libc::SIGKILL && end.out_of_memory;
            let reason = is_killer.then_some(SignalReason::Oom);
            Outcome::Signaled { signal, core: status.core_dumped(), reason }
        }
        (None, None) => unreachable!("waiting reports an exit or a signal, never a stop"),
    }
}

fn usage(end: &ProcessEnd, wall_ms: u64) -> Usage {
    Usage {
        wall_ms,
        user_ms: milliseconds(end.used.user),
        system_ms: milliseconds(end.used.system),
        max_rss_bytes: end.used.max_rss_bytes,
    }
}
