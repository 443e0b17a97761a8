//! Channel mode: what a connection carries between a stream's reply and its end.
//!
//! ```text
//!  0               4         5                    4 + length
//!  ├───────────────┼─────────┼────────────────────┤
//!  │ length u32 BE │ channel │ payload            │
//!  └───────────────┴─────────┴────────────────────┘
//!    1 ..= MAX_FRAME_LEN, counts the channel byte and the payload
//! ```
//!
//! The outer shape is a frame's, so a [`Decoder`](crate::frame::Decoder) cuts both. What is inside
//! a frame, channel byte and payload, is a [`Message`]; one WebSocket message of the daemon holds
//! exactly the same.

use crate::AgentError;
use crate::frame::{MAX_FRAME_LEN, PREFIX_LEN};
use crate::json;
use crate::message::{Outcome, Signal, Usage};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The longest payload that this crate sends in one message of a byte channel (64 KiB): long enough
/// that its envelope costs nothing, short enough that a control message doesn't wait for long.
pub const CHUNK_LEN: usize = 64 * 1024;

/// Which of a stream's four channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// 0: bytes for the program, host to agent. An empty payload is the end of its input.
    Stdin,
    /// 1: what it wrote to its standard output, or to its terminal; agent to host.
    Stdout,
    /// 2: what it wrote to its standard error, agent to host.
    Stderr,
    /// 3: JSON, both ways: [`HostControl`], [`AgentControl`].
    Control,
}

impl Channel {
    /// The byte on the wire.
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

/// How a peer broke channel mode.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Not even a channel byte.
    #[error("message without a channel")]
    Empty,
    /// A channel minted after this version, or junk. Unlike an unknown control message it can't be
    /// skipped: its bytes may be the program's.
    #[error("no channel has the number {0}")]
    Unknown(u8),
    /// A channel that only the other side sends on.
    #[error("channel {0:?} goes the other way")]
    Direction(Channel),
    /// Channel 3 carries a JSON object with a `type`.
    #[error("malformed control message")]
    Control(#[source] serde_json::Error),
}

/// One channel's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which channel.
    pub channel: Channel,
    /// Its bytes.
    pub payload: Bytes,
}

impl Message {
    /// Reads channel byte and payload: a frame's payload, or a WebSocket message.
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

    /// A control message of the host.
    #[must_use]
    pub fn host(control: &HostControl) -> Self {
        Self::control(control)
    }

    /// A control message of the agent.
    #[must_use]
    pub fn agent(control: &AgentControl) -> Self {
        Self::control(control)
    }

    fn control(control: &impl Serialize) -> Self {
        // Names and numbers; nothing in them can't be JSON, and none is long.
        let payload = serde_json::to_vec(control).unwrap_or_default().into();
        Self { channel: Channel::Control, payload }
    }

    /// Channel byte and payload, as one WebSocket message.
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

/// Appends what stands in front of a payload of `len` bytes.
///
/// # Panics
///
/// If `len` is no frame's.
pub fn put_header(out: &mut BytesMut, channel: Channel, len: usize) {
    assert!(len < MAX_FRAME_LEN, "a payload of {len} bytes fits no frame");
    out.reserve(PREFIX_LEN + 1 + len);
    // Below the frame's limit, so it fits.
    #[expect(clippy::cast_possible_truncation, reason = "asserted to be below 1 MiB")]
    out.put_u32((len + 1) as u32);
    out.put_u8(channel.number());
}

/// One of a program's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// The channel that carries it.
    #[must_use]
    pub fn channel(self) -> Channel {
        match self {
            Self::Stdout => Channel::Stdout,
            Self::Stderr => Channel::Stderr,
        }
    }
}

/// What a host says on channel 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostControl {
    /// The terminal has another size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
    /// Send a signal to the program's process group.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// How far the *client* has got. The agent need not keep what is before.
    Ack {
        /// Offset behind the last byte of standard output that it has.
        stdout: u64,
        /// The same of standard error.
        stderr: u64,
    },
    /// The client goes for good: `on_disconnect` decides at once.
    Leave,
    /// Minted after this version; to be ignored.
    #[serde(other)]
    Unknown,
}

/// What an agent says on channel 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentControl {
    /// Every [`HEARTBEAT`](crate::message::HEARTBEAT): so silence means that the agent is gone.
    Heartbeat,
    /// How much of its input the program has taken: the host need not keep what is before, and may
    /// send a window more.
    Ack {
        /// Offset behind the last byte.
        stdin: u64,
    },
    /// Output that is gone for ever: the next byte on this channel is the one at `to`.
    Gap {
        /// Whose.
        stream: OutputStream,
        /// Offset of the first lost byte.
        from: u64,
        /// Offset behind the last.
        to: u64,
    },
    /// The program has ended and all of its output was sent. The last message.
    Exit(Ended),
    /// A control message was refused; the stream goes on. Or, as the last message, another host
    /// took the stream over.
    Error(AgentError),
    /// Minted after this version; to be ignored.
    #[serde(other)]
    Unknown,
}

/// A program's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which end it was.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
}

impl Message {
    /// What a host reads on channel 3.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Control`].
    pub fn agent_control(&self) -> Result<AgentControl, ChannelError> {
        json::from_slice(&self.payload).map_err(ChannelError::Control)
    }

    /// What an agent reads on channel 3.
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
        Message { channel: Channel::Stdout, payload: Bytes::from_static(b"hi\n") }.encode(&mut out);
        assert_eq!(&out[..], b"\0\0\0\x04\x01hi\n");
        let mut decoder = Decoder::new();
        decoder.extend(&out);
        let message = Message::decode(decoder.next_frame().unwrap().unwrap()).unwrap();
        assert_eq!((message.channel, &message.payload[..]), (Channel::Stdout, &b"hi\n"[..]));
    }

    #[test]
    fn the_end_of_the_input_is_an_empty_payload() {
        let mut out = BytesMut::new();
        Message { channel: Channel::Stdin, payload: Bytes::new() }.encode(&mut out);
        assert_eq!(&out[..], b"\0\0\0\x01\x00");
    }

    #[test]
    fn controls_look_as_documented() {
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
            assert_eq!(Message::host(&control).payload, json);
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
            assert_eq!(Message::agent(&control).payload, json);
            assert_eq!(serde_json::from_str::<AgentControl>(json).unwrap(), control);
        }
    }

    #[test]
    fn a_control_of_tomorrow_is_ignored_and_a_channel_of_tomorrow_is_not() {
        let json = br#"{"type":"teleport","to":[1,2,3]}"#;
        let message = Message { channel: Channel::Control, payload: Bytes::from_static(json) };
        assert_eq!(message.agent_control().unwrap(), AgentControl::Unknown);
        assert_eq!(message.host_control().unwrap(), HostControl::Unknown);
        assert!(matches!(Message::decode(Bytes::from_static(&[4])), Err(ChannelError::Unknown(4))));
        assert!(matches!(Message::decode(Bytes::new()), Err(ChannelError::Empty)));
    }
}
