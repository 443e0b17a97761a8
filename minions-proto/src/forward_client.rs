//! Host side of a forward, without I/O.
//!
//! ```text
//!            host's end (empty channel 0)          target's end (empty channel 1)
//!   open ──┬─────────────────────────▶ half closed ─────────────────────────┬─▶ closed
//!          └─────────────────────────▶ half closed ─────────────────────────┘     ▲
//!          └──────────────── `closed`, in any state: the last message ────────────┘
//! ```
//!
//! The caller moves [`ChannelMessage`]s between this state and a connection, sends a
//! [heartbeat](ForwardClient::heartbeat) every [`HEARTBEAT`](crate::message::HEARTBEAT), and ends
//! the forward if the agent is [silent](ForwardClient::is_silent). Backpressure is the socket's.

use crate::AgentError;
use crate::channel::{CHUNK_LEN, Channel, ChannelError, ChannelMessage};
use crate::empty_messages::{EmptyMessageLimit, TooManyEmptyMessages};
use crate::forward::{
    CloseReason, FORWARD_SILENCE, ForwardAgentControl, ForwardHostControl, control, decode_control,
};
use bytes::Bytes;
use std::time::Instant;

/// Meaning of a message for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardEvent {
    /// The target sent these bytes.
    Data(Bytes),
    /// The target sends no more.
    TargetEnded,
    /// The target's connection failed; `Closed` follows.
    Failed(AgentError),
    /// The forward has ended; nothing follows.
    Closed(CloseReason),
    /// The agent is alive.
    Heartbeat,
}

/// Violation of the protocol by an agent.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// A message is not one of channel mode.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Bytes of the target after their end.
    #[error("the agent sent data of the target after its end")]
    AfterEnd,
    /// A message after `closed`.
    #[error("the agent sent a message after the last one")]
    AfterClose,
    /// The agent sends too many messages that carry nothing.
    #[error(transparent)]
    Empty(#[from] TooManyEmptyMessages),
}

/// Client's view of a forward.
#[derive(Debug)]
pub struct ForwardClient {
    host_ended: bool,
    target_ended: bool,
    closed: Option<CloseReason>,
    last_message: Instant,
    empty_messages: EmptyMessageLimit,
}

impl ForwardClient {
    /// Creates the state after the reply to `forward_open`, which arrived at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            host_ended: false,
            target_ended: false,
            closed: None,
            last_message: now,
            empty_messages: EmptyMessageLimit::new(0, now),
        }
    }

    /// Processes a message of the agent that was read at `now`.
    ///
    /// # Errors
    ///
    /// [`ForwardError`]: the connection must be closed.
    pub fn receive(
        &mut self,
        message: ChannelMessage,
        now: Instant,
    ) -> Result<ForwardEvent, ForwardError> {
        if self.closed.is_some() {
            return Err(ForwardError::AfterClose);
        }
        self.last_message = now;
        match message.channel {
            Channel::Stdout if self.target_ended => Err(ForwardError::AfterEnd),
            Channel::Stdout if message.payload.is_empty() => {
                self.target_ended = true;
                Ok(ForwardEvent::TargetEnded)
            }
            Channel::Stdout => Ok(ForwardEvent::Data(message.payload)),
            Channel::Control => self.receive_control(decode_control(&message)?, now),
            Channel::Stdin | Channel::Stderr => {
                Err(ChannelError::Direction(message.channel).into())
            }
        }
    }

    fn receive_control(
        &mut self,
        control: ForwardAgentControl,
        now: Instant,
    ) -> Result<ForwardEvent, ForwardError> {
        match control {
            ForwardAgentControl::Heartbeat | ForwardAgentControl::Unknown => {
                self.empty_messages.count_empty(now)?;
                Ok(ForwardEvent::Heartbeat)
            }
            ForwardAgentControl::Error(error) => {
                self.empty_messages.count_empty(now)?;
                Ok(ForwardEvent::Failed(error))
            }
            ForwardAgentControl::Closed { reason } => {
                self.closed = Some(reason);
                Ok(ForwardEvent::Closed(reason))
            }
        }
    }

    /// Returns the message with the next bytes for the target, at most [`CHUNK_LEN`] of `bytes`,
    /// which it removes. Returns `None` without bytes, or after [`end`](Self::end).
    pub fn send(&mut self, bytes: &mut Bytes) -> Option<ChannelMessage> {
        if bytes.is_empty() || self.host_ended {
            return None;
        }
        let payload = bytes.split_to(bytes.len().min(CHUNK_LEN));
        Some(ChannelMessage { channel: Channel::Stdin, payload })
    }

    /// Returns the message that ends the host's direction, the first time.
    pub fn end(&mut self) -> Option<ChannelMessage> {
        let first = !std::mem::replace(&mut self.host_ended, true);
        first.then(|| ChannelMessage { channel: Channel::Stdin, payload: Bytes::new() })
    }

    /// Returns the heartbeat of a host.
    #[must_use]
    pub fn heartbeat() -> ChannelMessage {
        control(&ForwardHostControl::Heartbeat)
    }

    /// Returns the message that ends the forward at once.
    #[must_use]
    pub fn leave() -> ChannelMessage {
        control(&ForwardHostControl::Leave)
    }

    /// Reports whether the agent has sent nothing for [`FORWARD_SILENCE`] although the host was
    /// reading.
    #[must_use]
    pub fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_message) >= FORWARD_SILENCE
    }

    /// Reports whether the target sends no more.
    #[must_use]
    pub fn target_has_ended(&self) -> bool {
        self.target_ended
    }
}

#[cfg(test)]
mod tests;
