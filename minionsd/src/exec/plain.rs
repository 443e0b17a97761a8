//! Programs of agents without the feature `exec2`, which support only one request and one reply per program. When the
//! caller goes away, the connection is closed; whether the agent then ends the program is up to the agent.

use super::driver::DriverEvent;
use crate::agent::{CallError, Lane, TransportError};
use crate::vm::Vm;
use bytes::Bytes;
use minions_proto::channel::{CHUNK_LEN, Ended, OutputStream};
use minions_proto::message::{Exec, ExecAttached, ExecId, ExecReply, HEARTBEAT, Outcome, Usage};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// A program presented as a stream: until it ends there are only heartbeats, which the daemon generates; then all
/// output follows.
pub(crate) struct PlainExec {
    attached: ExecAttached,
    reply: PlainReply,
    /// Events to return before anything else.
    pending: VecDeque<DriverEvent>,
    beat: Interval,
}

/// The reply to the only request.
enum PlainReply {
    Awaited(Pin<Box<dyn Future<Output = Result<ExecReply, CallError>> + Send>>),
    Complete(Box<ExecReply>),
    /// The pending events have replaced it.
    Split,
}

impl fmt::Debug for PlainExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainExec").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl PlainExec {
    /// Starts a program, and waits for its end or the first heartbeat: a program that cannot be started has failed by
    /// then. Only the daemon knows the program's id.
    ///
    /// # Errors
    ///
    /// Any error of a call.
    pub(super) async fn start(
        vm: Vm,
        id: ExecId,
        exec: Exec,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reply = Box::pin(async move { vm.client().call(&exec, Lane::Long, deadline).await });
        let reply = PlainReply::Awaited(reply);
        let mut plain = Self { attached: attached(id), reply, pending: VecDeque::new(), beat };
        let first = plain.reply_or_heartbeat().await?;
        plain.pending.extend(first);
        Ok(plain)
    }

    /// Returns the description of the program that an agent with execs would give: the program has no input, and its
    /// output starts at 0.
    pub(crate) fn attached(&self) -> &ExecAttached {
        &self.attached
    }

    /// Returns the next event; the last is [`DriverEvent::Ended`].
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Any error of a call. No event follows an error.
    pub(crate) async fn next(&mut self) -> Result<DriverEvent, CallError> {
        loop {
            if let Some(pending) = self.pending.pop_front() {
                return Ok(pending);
            }
            if let Some(heartbeat) = self.reply_or_heartbeat().await? {
                return Ok(heartbeat);
            }
            let PlainReply::Complete(reply) = std::mem::replace(&mut self.reply, PlainReply::Split)
            else {
                return Err(TransportError::Lost { sent: true }.into());
            };
            self.split(*reply);
        }
    }

    /// Waits for the end of the program and returns the agent's reply as it is.
    ///
    /// # Errors
    ///
    /// Any error of a call.
    pub(crate) async fn collect(self) -> Result<ExecReply, CallError> {
        match self.reply {
            PlainReply::Awaited(reply) => reply.await,
            PlainReply::Complete(reply) => Ok(*reply),
            PlainReply::Split => Err(TransportError::Lost { sent: true }.into()),
        }
    }

    /// Waits until the reply is complete, unless a heartbeat is due before; returns the heartbeat.
    ///
    /// Cancel safe.
    async fn reply_or_heartbeat(&mut self) -> Result<Option<DriverEvent>, CallError> {
        let PlainReply::Awaited(reply) = &mut self.reply else { return Ok(None) };
        tokio::select! {
            reply = reply => {
                self.reply = PlainReply::Complete(Box::new(reply?));
                Ok(None)
            }
            _ = self.beat.tick() => Ok(Some(DriverEvent::Heartbeat)),
        }
    }

    fn split(&mut self, reply: ExecReply) {
        let end = ended(&reply);
        self.queue_output(OutputStream::Stdout, reply.stdout);
        self.queue_output(OutputStream::Stderr, reply.stderr);
        self.pending.push_back(DriverEvent::Ended(end));
    }

    fn queue_output(&mut self, stream: OutputStream, text: String) {
        let mut bytes = Bytes::from(text);
        let mut offset = 0;
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_LEN));
            let len = chunk.len() as u64;
            self.pending.push_back(DriverEvent::Output(stream, offset, chunk));
            offset += len;
        }
    }
}

fn attached(id: ExecId) -> ExecAttached {
    ExecAttached {
        id,
        created: true,
        pid: 0,
        stdout: 0,
        stderr: 0,
        stdin: 0,
        stdin_acked: 0,
        stdin_window: 0,
        stdin_closed: true,
        reattach_grace_ms: None,
    }
}

/// Returns the end of the program, as far as such an agent reports it.
fn ended(reply: &ExecReply) -> Ended {
    let outcome = reply.outcome.clone().unwrap_or(Outcome::Exited { code: reply.exit_code });
    let wall_ms = reply.duration_ms.unwrap_or(0);
    Ended { outcome, usage: Usage { wall_ms, ..Usage::default() } }
}
