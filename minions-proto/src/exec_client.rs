//! Host side of a stream to an exec, without I/O.
//!
//! ```text
//!   program's input                          program's output
//!   ── acked ──┬── arrived ──┬── sent ──┬── kept          ── acked ──┬── received
//!              │    the agent has it    │   not yet sent             │  acked next
//!              └──────── at most one window ────────┘
//! ```
//!
//! The caller moves [`ChannelMessage`]s between this state and a connection, to an agent or to the
//! daemon's WebSocket. When the connection breaks, [`attach`](ExecClient::attach) returns the
//! request that re-attaches, and [`resume`](ExecClient::resume) takes its reply, so that no byte is
//! missing or repeated.

use crate::channel::{
    AgentControl, CHUNK_LEN, Channel, ChannelError, ChannelMessage, Ended, HostControl,
    OutputStream,
};
use crate::empty_messages::{EmptyMessageLimit, TooManyEmptyMessages};
use crate::error::AgentError;
use crate::message::{ExecAttach, ExecAttached, ExecId, Role};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::time::Instant;

/// Number of received bytes after which an ack is due; a fraction of what an agent keeps for its
/// client.
const ACK_AFTER: u64 = 128 * 1024;

/// Largest offset that an agent may send: 2⁵³ − 1, which every JSON reader represents exactly. A
/// program that writes 1 GB/s reaches it after a hundred days.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

/// Meaning of a message for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// The program wrote these bytes.
    Output(OutputStream, Bytes),
    /// The program wrote this many bytes that are lost permanently.
    Gap(OutputStream, u64),
    /// The program read some of its input: there may be room for more.
    InputTaken,
    /// The program ended; nothing follows.
    Ended(Ended),
    /// The agent refused a control message, or gave the stream to another host.
    Refused(AgentError),
    /// The agent is alive.
    Heartbeat,
}

/// Violation of the protocol in a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A message is not one of channel mode.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// An offset of the agent contradicts the client's.
    #[error("the agent counts {what} differently: {theirs} instead of {ours}")]
    Offset {
        /// Counted stream.
        what: &'static str,
        /// Offset of the agent.
        theirs: u64,
        /// Offset of the client.
        ours: u64,
    },
    /// An offset exceeds [`MAX_OFFSET`].
    #[error("the agent is at offset {offset} of {what}, which no program reaches")]
    TooLarge {
        /// Counted stream.
        what: &'static str,
        /// Offset of the agent.
        offset: u64,
    },
    /// The agent sends too many messages that carry nothing.
    #[error(transparent)]
    Empty(#[from] TooManyEmptyMessages),
}

/// Progress of an output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct OutputOffsets {
    received: u64,
    acked: u64,
}

/// Input that the program has not read yet, and may have to be sent again.
#[derive(Debug, Default)]
struct InputQueue {
    /// Input that the program has not read yet, according to the agent's acks; sent or not.
    kept: VecDeque<Bytes>,
    /// Offset of the first kept byte.
    kept_from: u64,
    /// Offset up to which the program has read. Smaller than `kept_from` only if another client
    /// sent the bytes in between, which the agent has.
    acked: u64,
    /// Offset after the last byte sent.
    sent: u64,
    /// Offset after the last kept byte.
    end: u64,
    /// Largest number of bytes to keep.
    window: u64,
    /// True if the input is complete.
    closed: bool,
    /// True if the end of the input was sent.
    close_sent: bool,
}

/// Checks the offsets in the reply that opens a stream.
///
/// # Errors
///
/// [`StreamError::TooLarge`]; [`StreamError::Offset`] if the program has read more input than has
/// arrived.
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

/// Checks an offset that an agent sent.
///
/// # Errors
///
/// [`StreamError::TooLarge`].
pub fn check_offset(what: &'static str, offset: u64) -> Result<(), StreamError> {
    if offset > MAX_OFFSET { Err(StreamError::TooLarge { what, offset }) } else { Ok(()) }
}

/// Client's view of an exec.
#[derive(Debug)]
pub struct ExecClient {
    id: ExecId,
    stdout: OutputOffsets,
    stderr: OutputOffsets,
    input: InputQueue,
    empty_messages: EmptyMessageLimit,
}

impl ExecClient {
    /// Creates the state at the start of a stream, at time `now`.
    ///
    /// # Errors
    ///
    /// As [`check_attached`].
    pub fn new(attached: &ExecAttached, now: Instant) -> Result<Self, StreamError> {
        check_attached(attached)?;
        let at = |offset: u64| OutputOffsets { received: offset, acked: offset };
        let input = InputQueue {
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

    /// Returns the id of the exec.
    #[must_use]
    pub fn id(&self) -> &ExecId {
        &self.id
    }

    /// Returns the offset after the last byte received.
    #[must_use]
    pub fn received(&self, stream: OutputStream) -> u64 {
        match stream {
            OutputStream::Stdout => self.stdout.received,
            OutputStream::Stderr => self.stderr.received,
        }
    }

    fn output(&mut self, stream: OutputStream) -> &mut OutputOffsets {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Processes a message of the agent that was read at `now`.
    ///
    /// # Errors
    ///
    /// [`StreamError`]: the stream can no longer be trusted.
    pub fn receive(
        &mut self,
        message: ChannelMessage,
        now: Instant,
    ) -> Result<StreamEvent, StreamError> {
        match message.channel {
            Channel::Stdin => Err(ChannelError::Direction(Channel::Stdin).into()),
            Channel::Stdout => self.receive_output(OutputStream::Stdout, message.payload, now),
            Channel::Stderr => self.receive_output(OutputStream::Stderr, message.payload, now),
            Channel::Control => self.receive_control(message.agent_control()?, now),
        }
    }

    fn receive_control(
        &mut self,
        control: AgentControl,
        now: Instant,
    ) -> Result<StreamEvent, StreamError> {
        self.empty_messages.count_control(&control, now)?;
        match control {
            AgentControl::Heartbeat | AgentControl::Unknown => Ok(StreamEvent::Heartbeat),
            AgentControl::Ack { stdin } => {
                self.input.acknowledge(stdin).map(|()| StreamEvent::InputTaken)
            }
            AgentControl::Gap { stream, from, to } => self.receive_gap(stream, from, to),
            AgentControl::Exit(ended) => Ok(StreamEvent::Ended(ended)),
            AgentControl::Error(error) => Ok(StreamEvent::Refused(error)),
        }
    }

    fn receive_output(
        &mut self,
        stream: OutputStream,
        bytes: Bytes,
        now: Instant,
    ) -> Result<StreamEvent, StreamError> {
        self.empty_messages.count_output(bytes.len(), now)?;
        self.output(stream).received += bytes.len() as u64;
        Ok(StreamEvent::Output(stream, bytes))
    }

    fn receive_gap(
        &mut self,
        stream: OutputStream,
        from: u64,
        to: u64,
    ) -> Result<StreamEvent, StreamError> {
        let what = "lost output";
        check_offset(what, to)?;
        let output = self.output(stream);
        let ours = output.received;
        if from != ours || to < from {
            let theirs = if from == ours { to } else { from };
            return Err(StreamError::Offset { what, theirs, ours });
        }
        output.received = to;
        Ok(StreamEvent::Gap(stream, to - from))
    }

    /// Returns an ack if one is due: after enough bytes since the last ack, or with `now` after any
    /// byte. The caller must have finished with all bytes received so far.
    pub fn ack(&mut self, now: bool) -> Option<HostControl> {
        let new = |output: &OutputOffsets| output.received - output.acked;
        let unacked = new(&self.stdout) + new(&self.stderr);
        if unacked == 0 || (unacked < ACK_AFTER && !now) {
            return None;
        }
        self.stdout.acked = self.stdout.received;
        self.stderr.acked = self.stderr.received;
        Some(HostControl::Ack { stdout: self.stdout.received, stderr: self.stderr.received })
    }

    /// Returns an ack of the last acknowledged offsets. It frees nothing; it declares that this
    /// client acknowledges output itself.
    #[must_use]
    pub fn offsets(&self) -> HostControl {
        HostControl::Ack { stdout: self.stdout.acked, stderr: self.stderr.acked }
    }

    /// Returns the number of input bytes that can be pushed now.
    #[must_use]
    pub fn input_room(&self) -> usize {
        let input = &self.input;
        if input.closed {
            return 0;
        }
        let room = input.window.saturating_sub(input.end - input.acked);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Adds input, at most [`input_room`](Self::input_room) bytes.
    pub fn push_input(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.input.end += bytes.len() as u64;
            self.input.kept.push_back(bytes);
        }
    }

    /// Marks the input as complete.
    pub fn close_input(&mut self) {
        self.input.closed = true;
    }

    /// Reports whether pushed input, or its end, has not been sent yet.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.input.sent < self.input.end || (self.input.closed && !self.input.close_sent)
    }

    /// Returns the next input message to send, if there is one.
    pub fn next_input(&mut self) -> Option<ChannelMessage> {
        let payload = self.input.next()?;
        Some(ChannelMessage { channel: Channel::Stdin, payload })
    }

    /// Returns the request that re-attaches after the connection broke.
    #[must_use]
    pub fn attach(&self) -> ExecAttach {
        ExecAttach {
            id: self.id.clone(),
            stdout: Some(self.stdout.received),
            stderr: Some(self.stderr.received),
            role: Role::Control,
        }
    }

    /// Continues with the stream that [`attach`](Self::attach) has opened.
    ///
    /// # Errors
    ///
    /// [`StreamError::Offset`] if the agent's offsets contradict the client's: it is not the same
    /// exec.
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

impl InputQueue {
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

    /// Drops kept input before `offset`, which the program has read.
    fn acknowledge(&mut self, offset: u64) -> Result<(), StreamError> {
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
        self.acknowledge(attached.stdin_acked)?;
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
