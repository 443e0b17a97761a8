//! The error type of streams.

use minions_proto::channel::ChannelError;
use minions_proto::frame::FrameError;
use std::io;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{self, protocol::CloseFrame};

/// Failure of a stream before the program has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The WebSocket was closed with a Close frame.
    #[error("minionsd closed the stream ({code}{})", if .reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Closed {
        /// Status code (RFC 6455, section 7.4).
        code: u16,
        /// Reason, for people.
        reason: String,
    },
    /// The connection ended or broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// The deadline passed without a message, even a heartbeat.
    #[error("the peer stopped responding")]
    Silent,
    /// The peer violated the WebSocket protocol.
    #[error("the peer violated the WebSocket protocol")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// The peer sent a malformed channel message.
    #[error("the peer sent a malformed message")]
    Channel(#[from] ChannelError),
    /// The peer sent a malformed frame.
    #[error("the peer sent a malformed frame")]
    Frame(#[from] FrameError),
}

impl LinkError {
    /// Reports whether another connection may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // 1000 before the exit message, going away, no status, abnormal closure, internal error, service
            // restart, try again later.
            Self::Closed { code, .. } => matches!(code, 1000 | 1001 | 1005 | 1006 | 1011..=1013),
            Self::Broken(_) | Self::Silent => true,
            Self::WebSocket(_) | Self::Channel(_) | Self::Frame(_) => false,
        }
    }

    /// Converts a failure of a WebSocket.
    pub(crate) fn of_websocket(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Io(error) => Self::Broken(error),
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::ended()
            }
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::ended()
            }
            error => Self::WebSocket(Box::new(error)),
        }
    }

    /// Returns the error for a WebSocket that was closed with this frame.
    pub(crate) fn closed(frame: Option<&CloseFrame>) -> Self {
        match frame {
            Some(frame) => {
                Self::Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() }
            }
            None => Self::Closed { code: 1005, reason: String::new() },
        }
    }

    /// Returns the error for a connection that ended without a reason.
    pub(crate) fn ended() -> Self {
        Self::Broken(io::ErrorKind::UnexpectedEof.into())
    }
}
