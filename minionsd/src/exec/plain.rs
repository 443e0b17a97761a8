//! Programs behind agents that know them as one request and one reply. When the caller goes away the
//! connection is closed; whether such an agent then ends the program is its own affair.

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
/// Whatever a call can meet.
pub(crate) async fn run(vm: &Vm, exec: &Exec, deadline: Instant) -> Result<ExecReply, CallError> {
    vm.client().call(exec, Lane::Long, deadline).await
}

/// A program told as if there were a stream to it: nothing but heartbeats, of our own, until it ends,
/// and then everything.
pub(crate) struct Plain {
    reply: Pin<Box<dyn Future<Output = Result<ExecReply, CallError>> + Send>>,
    told: VecDeque<Happened>,
    beat: Interval,
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Plain {
    /// Runs a program, and waits for as long as between two heartbeats: one that can't be started has
    /// failed by then.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub(crate) async fn start(vm: Vm, exec: Exec, deadline: Instant) -> Result<Self, CallError> {
        let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reply = Box::pin(async move { run(&vm, &exec, deadline).await });
        let mut plain = Self { reply, told: VecDeque::new(), beat };
        let first = plain.next().await?;
        plain.told.push_front(first);
        Ok(plain)
    }

    /// The next thing that happens; the last is [`Happened::Ended`].
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`run`]. Nothing follows.
    pub(crate) async fn next(&mut self) -> Result<Happened, CallError> {
        if let Some(told) = self.told.pop_front() {
            return Ok(told);
        }
        let reply = tokio::select! {
            reply = &mut self.reply => reply?,
            _ = self.beat.tick() => return Ok(Happened::Heartbeat),
        };
        let end = ended(&reply);
        self.tell(OutputStream::Stdout, reply.stdout);
        self.tell(OutputStream::Stderr, reply.stderr);
        self.told.push_back(Happened::Ended(end));
        // There is at least the end.
        self.told.pop_front().ok_or(CallError::Lost { sent: true })
    }

    fn tell(&mut self, stream: OutputStream, text: String) {
        let (mut bytes, mut offset) = (Bytes::from(text), 0);
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_LEN));
            let len = chunk.len() as u64;
            self.told.push_back(Happened::Output(stream, offset, chunk));
            offset += len;
        }
    }
}

/// How it ended, as far as such an agent tells.
fn ended(reply: &ExecReply) -> Ended {
    let outcome = reply.outcome.clone().unwrap_or(Outcome::Exited { code: reply.exit_code });
    let wall_ms = reply.duration_ms.unwrap_or(0);
    Ended { outcome, usage: Usage { wall_ms, ..Usage::default() } }
}
