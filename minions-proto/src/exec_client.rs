//! The host's half of a stream to an exec, without its I/O.
//!
//! ```text
//!   program's input                          program's output
//!   ── acked ──┬── arrived ──┬── sent ──┬── kept          ── acked ──┬── received
//!              │    the agent has it    │   still to send            │  told at the next ack
//!              └──────── at most one window ────────┘
//! ```
//!
//! Whoever drives it moves [`Message`]s between it and a connection: to an agent, or to the daemon's
//! WebSocket. When the connection breaks, [`attach`](ExecClient::attach) says where to go on and
//! [`resume`](ExecClient::resume) takes the answer, so that no byte is missing and none comes twice.

use crate::AgentError;
use crate::channel::{
    AgentControl, CHUNK_LEN, Channel, ChannelError, Ended, HostControl, Message, OutputStream,
};
use crate::empty_messages::{EmptyMessageLimit, TooManyEmptyMessages};
use crate::message::{ExecAttach, ExecAttached, ExecId, Role};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::time::Instant;

/// Bytes received after which an ack is due. A fraction of what an agent keeps for its client.
const ACK_AFTER: u64 = 128 * 1024;

/// Largest offset that an agent may name: 2⁵³ − 1, which every JSON reader holds exactly. A program that writes
/// 1 GB/s gets there after a hundred days.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

/// What a message means to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The program wrote this.
    Output(OutputStream, Bytes),
    /// The program wrote this many bytes that are lost for ever.
    Gap(OutputStream, u64),
    /// The program took some of its input: there may be room for more.
    InputTaken,
    /// It ended; nothing follows.
    Ended(Ended),
    /// The agent refused a control message, or gave the stream to another host.
    Refused(AgentError),
    /// The agent is alive.
    Heartbeat,
}

/// Where a stream and its peer disagree.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No channel message.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// An offset that can't be.
    #[error("the agent counts {what} differently: {theirs} where {ours} is right")]
    Offset {
        /// Of what.
        what: &'static str,
        /// By the agent.
        theirs: u64,
        /// By us.
        ours: u64,
    },
    /// An offset that no program reaches.
    #[error("the agent is at offset {offset} of {what}, which no program reaches")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// By the agent.
        offset: u64,
    },
    /// Too many messages that carry nothing.
    #[error(transparent)]
    Empty(#[from] TooManyEmptyMessages),
}

/// How far one output has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Output {
    received: u64,
    acked: u64,
}

/// Input that may be needed again.
#[derive(Debug, Default)]
struct Input {
    /// What the program hasn't taken yet, as far as we know; sent or not.
    kept: VecDeque<Bytes>,
    /// Offset of the first kept byte.
    kept_from: u64,
    /// The program has taken everything before this offset. Smaller than `kept_from` only where
    /// another client sent what is between: the agent has that.
    acked: u64,
    /// Offset behind the last byte sent.
    sent: u64,
    /// Offset behind the last kept byte.
    end: u64,
    /// Bytes that may be kept.
    window: u64,
    /// Whether there will be no more.
    closed: bool,
    /// Whether the agent was told so.
    close_sent: bool,
}

/// Checks the offsets at which a stream begins.
///
/// # Errors
///
/// [`StreamError::TooLarge`]; [`StreamError::Offset`] if more input was taken than has arrived.
pub fn check_attached(attached: &ExecAttached) -> Result<(), StreamError> {
    let ExecAttached { stdout, stderr, stdin, stdin_acked, .. } = *attached;
    check_offset("stdout", stdout)?;
    check_offset("stderr", stderr)?;
    check_offset("stdin", stdin)?;
    if stdin_acked > stdin {
        return Err(StreamError::Offset { what: "stdin", theirs: stdin_acked, ours: stdin });
    }
    Ok(())
}

/// Checks an offset that an agent names.
///
/// # Errors
///
/// [`StreamError::TooLarge`].
pub fn check_offset(what: &'static str, offset: u64) -> Result<(), StreamError> {
    if offset > MAX_OFFSET { Err(StreamError::TooLarge { what, offset }) } else { Ok(()) }
}

/// One exec as its client sees it.
#[derive(Debug)]
pub struct ExecClient {
    id: ExecId,
    stdout: Output,
    stderr: Output,
    input: Input,
    empty_messages: EmptyMessageLimit,
}

impl ExecClient {
    /// At the beginning of a stream, which is at `now`.
    ///
    /// # Errors
    ///
    /// As [`check_attached`].
    pub fn new(attached: &ExecAttached, now: Instant) -> Result<Self, StreamError> {
        check_attached(attached)?;
        let at = |offset: u64| Output { received: offset, acked: offset };
        let input = Input {
            kept: VecDeque::new(),
            kept_from: attached.stdin,
            acked: attached.stdin_acked,
            sent: attached.stdin,
            end: attached.stdin,
            window: attached.stdin_window,
            closed: attached.stdin_closed,
            close_sent: attached.stdin_closed,
        };
        Ok(Self {
            id: attached.id.clone(),
            stdout: at(attached.stdout),
            stderr: at(attached.stderr),
            empty_messages: EmptyMessageLimit::new(input.acked, now),
            input,
        })
    }

    /// Which exec.
    #[must_use]
    pub fn id(&self) -> &ExecId {
        &self.id
    }

    /// Offset behind the last byte received.
    #[must_use]
    pub fn received(&self, stream: OutputStream) -> u64 {
        match stream {
            OutputStream::Stdout => self.stdout.received,
            OutputStream::Stderr => self.stderr.received,
        }
    }

    fn output(&mut self, stream: OutputStream) -> &mut Output {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Takes a message of the agent that was read at `now`.
    ///
    /// # Errors
    ///
    /// [`StreamError`]: the stream can't be trusted any more.
    pub fn receive(&mut self, message: Message, now: Instant) -> Result<Event, StreamError> {
        match message.channel {
            Channel::Stdin => Err(ChannelError::Direction(Channel::Stdin).into()),
            Channel::Stdout => self.written(OutputStream::Stdout, message.payload, now),
            Channel::Stderr => self.written(OutputStream::Stderr, message.payload, now),
            Channel::Control => self.controlled(message.agent_control()?, now),
        }
    }

    fn controlled(&mut self, control: AgentControl, now: Instant) -> Result<Event, StreamError> {
        self.empty_messages.count_control(&control, now)?;
        match control {
            AgentControl::Heartbeat | AgentControl::Unknown => Ok(Event::Heartbeat),
            AgentControl::Ack { stdin } => self.input.taken(stdin).map(|()| Event::InputTaken),
            AgentControl::Gap { stream, from, to } => self.lost(stream, from, to),
            AgentControl::Exit(ended) => Ok(Event::Ended(ended)),
            AgentControl::Error(error) => Ok(Event::Refused(error)),
        }
    }

    fn written(
        &mut self,
        stream: OutputStream,
        bytes: Bytes,
        now: Instant,
    ) -> Result<Event, StreamError> {
        self.empty_messages.count_output(bytes.len(), now)?;
        self.output(stream).received += bytes.len() as u64;
        Ok(Event::Output(stream, bytes))
    }

    fn lost(&mut self, stream: OutputStream, from: u64, to: u64) -> Result<Event, StreamError> {
        let what = "lost output";
        check_offset(what, to)?;
        let output = self.output(stream);
        let ours = output.received;
        if from != ours || to < from {
            let theirs = if from == ours { to } else { from };
            return Err(StreamError::Offset { what, theirs, ours });
        }
        output.received = to;
        Ok(Event::Gap(stream, to - from))
    }

    /// The ack that is due: because so much was received since the last one, or, if `now`, anything
    /// at all. Whoever calls has done with everything received what it wants to do with it.
    pub fn ack(&mut self, now: bool) -> Option<HostControl> {
        let new = |output: &Output| output.received - output.acked;
        let unacked = new(&self.stdout) + new(&self.stderr);
        if unacked == 0 || (unacked < ACK_AFTER && !now) {
            return None;
        }
        self.stdout.acked = self.stdout.received;
        self.stderr.acked = self.stderr.received;
        Some(HostControl::Ack { stdout: self.stdout.received, stderr: self.stderr.received })
    }

    /// An ack of everything received, whether or not it was acknowledged before: tells the other end that
    /// this client acknowledges by itself.
    #[must_use]
    pub fn offsets(&self) -> HostControl {
        HostControl::Ack { stdout: self.stdout.acked, stderr: self.stderr.acked }
    }

    /// How many bytes of input can be taken at the moment.
    #[must_use]
    pub fn input_room(&self) -> usize {
        let input = &self.input;
        if input.closed {
            return 0;
        }
        let room = input.window.saturating_sub(input.end - input.acked);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Takes more input, at most [`input_room`](Self::input_room).
    pub fn push_input(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.input.end += bytes.len() as u64;
            self.input.kept.push_back(bytes);
        }
    }

    /// There is no more input.
    pub fn close_input(&mut self) {
        self.input.closed = true;
    }

    /// Whether there is input, or its end, that was taken and not sent yet.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.input.sent < self.input.end || (self.input.closed && !self.input.close_sent)
    }

    /// The next message of input to be sent, if there is any.
    pub fn next_input(&mut self) -> Option<Message> {
        let payload = self.input.next()?;
        Some(Message { channel: Channel::Stdin, payload })
    }

    /// How to come back after the connection broke.
    #[must_use]
    pub fn attach(&self) -> ExecAttach {
        ExecAttach {
            id: self.id.clone(),
            stdout: Some(self.stdout.received),
            stderr: Some(self.stderr.received),
            role: Role::Control,
        }
    }

    /// Goes on with the stream that [`attach`](Self::attach) has opened.
    ///
    /// # Errors
    ///
    /// [`StreamError::Offset`] if the agent's counts contradict ours: it isn't the same exec.
    pub fn resume(&mut self, attached: &ExecAttached) -> Result<(), StreamError> {
        for (what, theirs, ours) in [
            ("stdout", attached.stdout, self.stdout.received),
            ("stderr", attached.stderr, self.stderr.received),
        ] {
            if theirs != ours {
                return Err(StreamError::Offset { what, theirs, ours });
            }
        }
        self.stdout.acked = self.stdout.received;
        self.stderr.acked = self.stderr.received;
        self.input.resume(attached)
    }
}

impl Input {
    fn next(&mut self) -> Option<Bytes> {
        if self.sent == self.end {
            let close = self.closed && !self.close_sent;
            self.close_sent |= close;
            return close.then(Bytes::new);
        }
        let mut skip = usize::try_from(self.sent - self.kept_from).ok()?;
        for chunk in &self.kept {
            if skip < chunk.len() {
                let len = (chunk.len() - skip).min(CHUNK_LEN);
                self.sent += len as u64;
                return Some(chunk.slice(skip..skip + len));
            }
            skip -= chunk.len();
        }
        None
    }

    /// The program has taken everything before `offset`.
    fn taken(&mut self, offset: u64) -> Result<(), StreamError> {
        if offset < self.acked || offset > self.end {
            return Err(StreamError::Offset { what: "stdin", theirs: offset, ours: self.acked });
        }
        self.acked = offset;
        while self.kept_from < offset {
            let Some(chunk) = self.kept.front_mut() else { break };
            let done = offset - self.kept_from;
            let done = usize::try_from(done).unwrap_or(usize::MAX).min(chunk.len());
            chunk.advance(done);
            self.kept_from += done as u64;
            if chunk.is_empty() {
                self.kept.pop_front();
            }
        }
        Ok(())
    }

    fn resume(&mut self, attached: &ExecAttached) -> Result<(), StreamError> {
        self.taken(attached.stdin_acked)?;
        if !(self.kept_from..=self.end).contains(&attached.stdin) {
            let ours = self.sent;
            return Err(StreamError::Offset { what: "stdin", theirs: attached.stdin, ours });
        }
        self.sent = attached.stdin;
        self.window = attached.stdin_window;
        self.close_sent = attached.stdin_closed;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
