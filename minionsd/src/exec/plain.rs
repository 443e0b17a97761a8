//! Programs of agents without the feature `exec2`, which support only one request and one reply per program. When the
//! caller goes away, the connection is closed; whether the agent then ends the program is up to the agent.

use super::Happened;
use crate::agent::{CallError, Lane};
use crate::vm::Vm;
use bytes::Bytes;
use minions_proto::channel::{CHUNK_LEN, Ended, OutputStream};
use minions_proto::message::{Exec, ExecReply, HEARTBEAT, Outcome, Usage};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Runs a program to its end.
///
/// # Errors
///
/// Any error of a call.
pub(crate) async fn run(vm: &Vm, exec: &Exec, deadline: Instant) -> Result<ExecReply, CallError> {
    vm.client().call(exec, Lane::Long, deadline).await
}

/// A program presented as a stream: until it ends there are only heartbeats, which the daemon generates; then all
/// output follows.
pub(crate) struct Plain {
    reply: Pin<Box<dyn Future<Output = Result<ExecReply, CallError>> + Send>>,
    pending: VecDeque<Happened>,
    beat: Interval,
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Plain {
    /// Starts a program, and waits for its end or the first heartbeat: a program that cannot be started has failed by
    /// then.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub(crate) async fn start(vm: Vm, exec: Exec, deadline: Instant) -> Result<Self, CallError> {
        let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reply = Box::pin(async move { run(&vm, &exec, deadline).await });
        let mut plain = Self { reply, pending: VecDeque::new(), beat };
        let first = plain.next().await?;
        plain.pending.push_front(first);
        Ok(plain)
    }

    /// Returns the next event; the last is [`Happened::Ended`].
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`run`]. No event follows an error.
    pub(crate) async fn next(&mut self) -> Result<Happened, CallError> {
        if let Some(pending) = self.pending.pop_front() {
            return Ok(pending);
        }
        let reply = tokio::select! {
            reply = &mut self.reply => reply?,
            _ = self.beat.tick() => return Ok(Happened::Heartbeat),
        };
        let end = ended(&reply);
        self.queue_output(OutputStream::Stdout, reply.stdout);
        self.queue_output(OutputStream::Stderr, reply.stderr);
        self.pending.push_back(Happened::Ended(end));
        // Cannot be empty: the end was just queued.
        self.pending.pop_front().ok_or(CallError::Lost { sent: true })
    }

    fn queue_output(&mut self, stream: OutputStream, text: String) {
        let mut bytes = Bytes::from(text);
        let mut offset = 0;
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_LEN));
            let len = chunk.len() as u64;
            self.pending.push_back(Happened::Output(stream, offset, chunk));
            offset += len;
        }
    }
}

/// Returns the end of the program, as far as such an agent reports it.
fn ended(reply: &ExecReply) -> Ended {
    let outcome = reply.outcome.clone().unwrap_or(Outcome::Exited { code: reply.exit_code });
    let wall_ms = reply.duration_ms.unwrap_or(0);
    Ended { outcome, usage: Usage { wall_ms, ..Usage::default() } }
}
