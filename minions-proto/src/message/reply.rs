//! The reply envelope: `{"status":"ok",…}` or `{"status":"error",…}`.

use crate::error::AgentError;
use crate::frame::{EncodeError, encode};
use crate::json;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::borrow::Cow;

/// A reply that only says what was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// For people: `network configured`, `wrote 80 bytes to /etc/motd`.
    pub message: String,
}

/// Why a frame is not the reply that was waited for.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The agent said no. The connection is fine.
    #[error("agent refused")]
    Agent(#[source] AgentError),
    /// Not a reply, or not to this request: the peer doesn't speak the protocol.
    #[error("reply is malformed")]
    Malformed(#[source] serde_json::Error),
    /// A `status` other than `ok` and `error`.
    #[error("reply has a status that is neither `ok` nor `error`")]
    UnknownStatus,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    status: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Deserialize)]
struct StatusOnly<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
}

/// Encodes a success reply as one frame.
///
/// # Errors
///
/// [`EncodeError`] if it is longer than a frame.
pub fn encode_reply<T: Serialize>(body: &T) -> Result<Vec<u8>, EncodeError> {
    encode(&Envelope { status: "ok", body })
}

/// Encodes an error reply as one frame.
///
/// # Errors
///
/// [`EncodeError`] if the message is longer than a frame.
pub fn encode_error(error: &AgentError) -> Result<Vec<u8>, EncodeError> {
    encode(&Envelope { status: "error", body: error })
}

/// Decodes one frame's payload as the reply to a request whose success reply is `T`.
///
/// # Errors
///
/// [`ReplyError::Agent`] is an answer; the others mean that the stream can't be trusted any more.
pub fn decode_reply<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ReplyError> {
    // Bounds the depth of everything, so also of what follows.
    let StatusOnly { status } = json::from_slice(payload).map_err(ReplyError::Malformed)?;
    match status.as_ref() {
        "ok" => serde_json::from_slice(payload).map_err(ReplyError::Malformed),
        "error" => Err(match serde_json::from_slice(payload) {
            Ok(error) => ReplyError::Agent(error),
            Err(error) => ReplyError::Malformed(error),
        }),
        _ => Err(ReplyError::UnknownStatus),
    }
}
