//! Channel mode: the messages on a connection after the reply that opened a stream.
//!
//! ```text
//!  0               4         5                    4 + length
//!  ├───────────────┼─────────┼────────────────────┤
//!  │ length u32 BE │ channel │ payload            │
//!  └───────────────┴─────────┴────────────────────┘
//!    1 ..= MAX_FRAME_LEN, counts the channel byte and the payload
//! ```
//!
//! The outer form is that of a frame, so a [`Decoder`](crate::frame::Decoder) decodes both. The
//! content of a frame, channel byte and payload, is a [`ChannelMessage`]; a WebSocket message of the
//! daemon has the same content.

use crate::error::AgentError;
use crate::frame::{MAX_FRAME_LEN, PREFIX_LEN};
use crate::json;
use crate::message::{Outcome, Signal, Usage};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Longest payload that this crate sends in one message of a byte channel: 64 KiB. Long enough to
/// make the overhead negligible, short enough not to delay control messages.
pub const CHUNK_LEN: usize = 64 * 1024;

/// Channel of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Channel 0: bytes for the program, host to agent. An empty payload is the end of its input.
    Stdin,
    /// Channel 1: the program's standard output or terminal output, agent to host.
    Stdout,
    /// Channel 2: the program's standard error, agent to host.
    Stderr,
    /// Channel 3: JSON in both directions: [`HostControl`], [`AgentControl`].
    Control,
}

impl Channel {
    /// Returns the channel's byte on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Control => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Control),
            _ => None,
        }
    }
}

/// Violation of channel mode by a peer.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The message has no channel byte.
    #[error("message without a channel")]
    Empty,
    /// The channel is not known: it was added after this version, or the byte is junk. Unlike an
    /// unknown control message it cannot be skipped: its bytes may be the program's.
    #[error("no channel has the number {0}")]
    Unknown(u8),
    /// Only the other side sends on this channel.
    #[error("channel {0:?} is for the other direction")]
    Direction(Channel),
    /// A message on channel 3 is not a JSON object with a `type`.
    #[error("malformed control message")]
    Control(#[source] serde_json::Error),
}

/// Payload of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelMessage {
    /// Channel of the payload.
    pub channel: Channel,
    /// Bytes after the channel byte.
    pub payload: Bytes,
}

impl ChannelMessage {
    /// Decodes channel byte and payload from the payload of a frame, or from a WebSocket message.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Empty`], [`ChannelError::Unknown`].
    pub fn decode(mut bytes: Bytes) -> Result<Self, ChannelError> {
        if bytes.is_empty() {
            return Err(ChannelError::Empty);
        }
        let number = bytes.get_u8();
        let channel = Channel::from_number(number).ok_or(ChannelError::Unknown(number))?;
        Ok(Self { channel, payload: bytes })
    }

    /// Creates a control message of the host.
    #[must_use]
    pub fn host(control: &HostControl) -> Self {
        Self::control(control)
    }

    /// Creates a control message of the agent.
    #[must_use]
    pub fn agent(control: &AgentControl) -> Self {
        Self::control(control)
    }

    fn control(control: &impl Serialize) -> Self {
        // Names and numbers: JSON can represent all of them, and none is long.
        let payload = json::to_vec(control).unwrap_or_default().into();
        Self { channel: Channel::Control, payload }
    }

    /// Encodes channel byte and payload as one WebSocket message.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + self.payload.len());
        bytes.put_u8(self.channel.number());
        bytes.put_slice(&self.payload);
        bytes.freeze()
    }

    /// Appends the message as one frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_header(out, self.channel, self.payload.len());
        out.put_slice(&self.payload);
    }
}

/// Appends the frame's length prefix and the channel byte for a payload of `len` bytes.
///
/// # Panics
///
/// If the payload does not fit in a frame.
pub fn put_header(out: &mut BytesMut, channel: Channel, len: usize) {
    assert!(len < MAX_FRAME_LEN, "a payload of {len} bytes does not fit in a frame");
    out.reserve(PREFIX_LEN + 1 + len);
    #[expect(clippy::cast_possible_truncation, reason = "asserted to be below 1 MiB")]
    out.put_u32((len + 1) as u32);
    out.put_u8(channel.number());
}

/// Output stream of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = StreamName))]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// Returns the channel of this stream.
    #[must_use]
    pub fn channel(self) -> Channel {
        match self {
            Self::Stdout => Channel::Stdout,
            Self::Stderr => Channel::Stderr,
        }
    }
}

/// Control message of a host, on channel 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostControl {
    /// The terminal has a new size.
    Resize {
        /// Number of lines.
        rows: u16,
        /// Number of characters per line.
        cols: u16,
    },
    /// Send a signal to the program's process group.
    Signal {
        /// Signal to send.
        signal: Signal,
    },
    /// The *client* has received the output up to these offsets. The agent need not keep it any
    /// longer.
    Ack {
        /// Offset after the last byte of standard output that the client has.
        stdout: u64,
        /// Offset after the last byte of standard error that the client has.
        stderr: u64,
    },
    /// The client leaves and will not return: `on_disconnect` applies at once.
    Leave,
    /// A message that was added after this version; ignored.
    #[serde(other)]
    Unknown,
}

/// Control message of an agent, on channel 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentControl {
    /// The agent is alive. Sent every [`HEARTBEAT`](crate::message::HEARTBEAT), so silence means
    /// that the agent is gone.
    Heartbeat,
    /// The program has read its input up to this offset: the host need not keep that input, and may
    /// send up to one window beyond it.
    Ack {
        /// Offset after the last byte of input that the program has read.
        stdin: u64,
    },
    /// Output is lost permanently; the next byte on its channel is the one at `to`.
    Gap {
        /// Stream that lost output.
        stream: OutputStream,
        /// Offset of the first lost byte.
        from: u64,
        /// Offset after the last lost byte.
        to: u64,
    },
    /// The program has ended, and all of its output was sent. The last message.
    Exit(Ended),
    /// The agent refused a control message, and the stream continues; or, as the last message,
    /// another host took over the stream.
    Error(AgentError),
    /// A message that was added after this version; ignored.
    #[serde(other)]
    Unknown,
}

/// End of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Outcome of the program.
    pub outcome: Outcome,
    /// Resources that the program used.
    pub usage: Usage,
}

impl ChannelMessage {
    /// Decodes a message on channel 3, as a host does.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Control`].
    pub fn agent_control(&self) -> Result<AgentControl, ChannelError> {
        json::from_slice(&self.payload).map_err(ChannelError::Control)
    }

    /// Decodes a message on channel 3, as an agent does.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Control`].
    pub fn host_control(&self) -> Result<HostControl, ChannelError> {
        json::from_slice(&self.payload).map_err(ChannelError::Control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Decoder;

    #[test]
    fn a_message_is_a_frame_with_a_channel_byte() {
        let mut out = BytesMut::new();
        ChannelMessage { channel: Channel::Stdout, payload: Bytes::from_static(b"hi\n") }
            .encode(&mut out);
        assert_eq!(&out[..], b"\0\0\0\x04\x01hi\n");
        let mut decoder = Decoder::new();
        decoder.extend(&out);
        let message = ChannelMessage::decode(decoder.next_frame().unwrap().unwrap()).unwrap();
        assert_eq!((message.channel, &message.payload[..]), (Channel::Stdout, &b"hi\n"[..]));
    }

    #[test]
    fn the_end_of_input_is_an_empty_payload() {
        let mut out = BytesMut::new();
        ChannelMessage { channel: Channel::Stdin, payload: Bytes::new() }.encode(&mut out);
        assert_eq!(&out[..], b"\0\0\0\x01\x00");
    }

    #[test]
    fn control_messages_have_the_documented_json() {
        for (control, json) in [
            (
                HostControl::Resize { rows: 24, cols: 80 },
                r#"{"type":"resize","rows":24,"cols":80}"#,
            ),
            (
                HostControl::Signal { signal: "INT".parse().unwrap() },
                r#"{"type":"signal","signal":"INT"}"#,
            ),
            (HostControl::Ack { stdout: 5, stderr: 0 }, r#"{"type":"ack","stdout":5,"stderr":0}"#),
            (HostControl::Leave, r#"{"type":"leave"}"#),
        ] {
            assert_eq!(ChannelMessage::host(&control).payload, json);
            assert_eq!(serde_json::from_str::<HostControl>(json).unwrap(), control);
        }
        let ended = Ended {
            outcome: Outcome::Exited { code: 3 },
            usage: Usage { wall_ms: 12, user_ms: 1, system_ms: 2, max_rss_bytes: 4096 },
        };
        for (control, json) in [
            (AgentControl::Heartbeat, r#"{"type":"heartbeat"}"#),
            (AgentControl::Ack { stdin: 9 }, r#"{"type":"ack","stdin":9}"#),
            (
                AgentControl::Gap { stream: OutputStream::Stderr, from: 1, to: 2 },
                r#"{"type":"gap","stream":"stderr","from":1,"to":2}"#,
            ),
            (
                AgentControl::Exit(ended),
                r#"{"type":"exit","outcome":{"type":"exited","code":3},"usage":{"wall_ms":12,"user_ms":1,"system_ms":2,"max_rss_bytes":4096}}"#,
            ),
        ] {
            assert_eq!(ChannelMessage::agent(&control).payload, json);
            assert_eq!(serde_json::from_str::<AgentControl>(json).unwrap(), control);
        }
    }

    #[test]
    fn unknown_control_messages_are_ignored_and_unknown_channels_are_errors() {
        let json = br#"{"type":"teleport","to":[1,2,3]}"#;
        let message =
            ChannelMessage { channel: Channel::Control, payload: Bytes::from_static(json) };
        assert_eq!(message.agent_control().unwrap(), AgentControl::Unknown);
        assert_eq!(message.host_control().unwrap(), HostControl::Unknown);
        assert!(matches!(
            ChannelMessage::decode(Bytes::from_static(&[4])),
            Err(ChannelError::Unknown(4))
        ));
        assert!(matches!(ChannelMessage::decode(Bytes::new()), Err(ChannelError::Empty)));
    }
}
