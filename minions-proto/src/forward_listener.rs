//! Messages of a listener in the guest: channel mode on a connection after the reply to
//! `forward_listen`, and the host side of it, without I/O.
//!
//! ```text
//!  channel 3   host → agent   JSON: heartbeats, `refuse`, `leave`
//!  channel 3   agent → host   JSON: heartbeats, `connection`, `error`, and last `closed`
//! ```
//!
//! The host takes a connection with `forward_accept` on another connection to the agent, within
//! [`ACCEPT_DEADLINE`]. The listener ends with its stream.

use crate::AgentError;
use crate::channel::{Channel, ChannelError, ChannelMessage};
use crate::empty_messages::{EmptyMessageLimit, TooManyEmptyMessages};
use crate::forward::{CloseReason, FORWARD_SILENCE, control, decode_control};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time for which a connection waits for the host. The agent then resets it.
pub const ACCEPT_DEADLINE: Duration = Duration::from_secs(30);

/// Control message of a host, on channel 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ListenerHostControl {
    /// The host is alive. Sent every [`HEARTBEAT`](crate::message::HEARTBEAT).
    Heartbeat,
    /// The host will not take this connection: the agent resets it.
    Refuse {
        /// Number of the connection.
        connection: u64,
    },
    /// The agent closes the listener and all connections that wait.
    Leave,
    /// A message that was added after this version; ignored.
    #[serde(other)]
    Unknown,
}

/// Control message of an agent, on channel 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ListenerAgentControl {
    /// The agent is alive. Sent every [`HEARTBEAT`](crate::message::HEARTBEAT).
    Heartbeat,
    /// A connection waits.
    Connection(WaitingConnection),
    /// Failure of the listener, or of the host's last message. `closed` follows.
    Error(AgentError),
    /// The listener is closed. The last message.
    Closed {
        /// Reason for the end.
        reason: CloseReason,
    },
    /// A message that was added after this version; ignored.
    #[serde(other)]
    Unknown,
}

/// Connection that waits on a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingConnection {
    /// Number of the connection, larger than that of every earlier one of the listener.
    pub connection: u64,
    /// Address of the other side; absent for a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
}

/// Meaning of a message for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerEvent {
    /// A connection waits.
    Connection(WaitingConnection),
    /// The listener failed; `Closed` follows.
    Failed(AgentError),
    /// The listener has ended; nothing follows.
    Closed(CloseReason),
    /// The agent is alive.
    Heartbeat,
}

/// Violation of the protocol by an agent.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// A message is not one of channel mode.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The number of a connection is not larger than the last one.
    #[error("the agent reported connection {0} after a connection with a larger or equal number")]
    Order(u64),
    /// A message after `closed`.
    #[error("the agent sent a message after the last one")]
    AfterClose,
    /// The agent sends too many messages that carry nothing.
    #[error(transparent)]
    Empty(#[from] TooManyEmptyMessages),
}

/// Host's view of a listener.
#[derive(Debug)]
pub struct ListenerClient {
    last_connection: Option<u64>,
    is_closed: bool,
    last_message: Instant,
    empty_messages: EmptyMessageLimit,
}

impl ListenerClient {
    /// Creates the state after the reply to `forward_listen`, which arrived at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            last_connection: None,
            is_closed: false,
            last_message: now,
            empty_messages: EmptyMessageLimit::new(0, now),
        }
    }

    /// Processes a message of the agent that was read at `now`.
    ///
    /// # Errors
    ///
    /// [`ListenerError`]: the connection must be closed.
    pub fn receive(
        &mut self,
        message: &ChannelMessage,
        now: Instant,
    ) -> Result<ListenerEvent, ListenerError> {
        if self.is_closed {
            return Err(ListenerError::AfterClose);
        }
        self.last_message = now;
        if message.channel != Channel::Control {
            return Err(ChannelError::Direction(message.channel).into());
        }
        match decode_control(message)? {
            ListenerAgentControl::Connection(waiting) => {
                if self.last_connection.is_some_and(|last| waiting.connection <= last) {
                    return Err(ListenerError::Order(waiting.connection));
                }
                self.last_connection = Some(waiting.connection);
                Ok(ListenerEvent::Connection(waiting))
            }
            ListenerAgentControl::Heartbeat | ListenerAgentControl::Unknown => {
                self.empty_messages.count_empty(now)?;
                Ok(ListenerEvent::Heartbeat)
            }
            ListenerAgentControl::Error(error) => {
                self.empty_messages.count_empty(now)?;
                Ok(ListenerEvent::Failed(error))
            }
            ListenerAgentControl::Closed { reason } => {
                self.is_closed = true;
                Ok(ListenerEvent::Closed(reason))
            }
        }
    }

    /// Returns the heartbeat of a host.
    #[must_use]
    pub fn heartbeat() -> ChannelMessage {
        control(&ListenerHostControl::Heartbeat)
    }

    /// Returns the message that resets a waiting connection.
    #[must_use]
    pub fn refuse(connection: u64) -> ChannelMessage {
        control(&ListenerHostControl::Refuse { connection })
    }

    /// Returns the message that ends the listener at once.
    #[must_use]
    pub fn leave() -> ChannelMessage {
        control(&ListenerHostControl::Leave)
    }

    /// Reports whether the agent has sent nothing for [`FORWARD_SILENCE`] although the host was
    /// reading.
    #[must_use]
    pub fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_message) >= FORWARD_SILENCE
    }
}

#[cfg(test)]
mod tests;
