//! Messages of a forward: channel mode on a connection after the reply to `forward_open`.
//!
//! ```text
//!  channel 0   host → agent   bytes for the target; an empty payload is their end
//!  channel 1   agent → host   bytes of the target; an empty payload is their end
//!  channel 3   both           JSON: heartbeats, `leave`, `error`, and last `closed`
//! ```

use crate::AgentError;
use crate::channel::{Channel, ChannelError, ChannelMessage};
use crate::json;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time without a message of the host, or of the agent, after which the other side ends the
/// forward: six heartbeats.
pub const FORWARD_SILENCE: Duration = Duration::from_secs(30);

/// Control message of a host, on channel 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ForwardHostControl {
    /// The host is alive. Sent every [`HEARTBEAT`](crate::message::HEARTBEAT).
    Heartbeat,
    /// The client is gone: the agent closes the target's connection.
    Leave,
    /// A message that was added after this version; ignored.
    #[serde(other)]
    Unknown,
}

/// Control message of an agent, on channel 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ForwardAgentControl {
    /// The agent is alive. Sent every [`HEARTBEAT`](crate::message::HEARTBEAT).
    Heartbeat,
    /// Failure of the target's connection, or of the host's last message. `closed` follows.
    Error(AgentError),
    /// The target's connection is closed. The last message.
    Closed {
        /// Reason for the end.
        reason: CloseReason,
    },
    /// A message that was added after this version; ignored.
    #[serde(other)]
    Unknown,
}

/// Reason for the end of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// Both directions have ended.
    Ended,
    /// The target's connection failed.
    Reset,
    /// The host asked for the end.
    Left,
    /// The host sent nothing for [`FORWARD_SILENCE`].
    HostSilent,
    /// The host's messages violate the protocol.
    Protocol,
    /// A reason that was added after this version.
    #[serde(other)]
    Other,
}

/// Creates a control message of either side.
#[must_use]
pub fn control(control: &impl Serialize) -> ChannelMessage {
    // Names and short texts: JSON can represent all of them.
    let payload = json::to_vec(control).unwrap_or_default().into();
    ChannelMessage { channel: Channel::Control, payload }
}

/// Decodes a control message: a [`ForwardHostControl`] or a [`ForwardAgentControl`].
///
/// # Errors
///
/// [`ChannelError::Control`].
pub fn decode_control<T: DeserializeOwned>(message: &ChannelMessage) -> Result<T, ChannelError> {
    json::from_slice(&message.payload).map_err(ChannelError::Control)
}
