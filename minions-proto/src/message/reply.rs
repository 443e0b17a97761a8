//! Envelope of replies: `{"status":"ok",…}` or `{"status":"error",…}`.

use crate::error::AgentError;
use crate::frame::{EncodeError, encode_after};
use crate::json;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::borrow::Cow;

/// Reply without data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Text for people: `network configured`, `wrote 80 bytes to /etc/motd`.
    pub message: String,
}

/// Reason why a frame is not the expected reply.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The agent refused. The connection is reusable.
    #[error("agent refused")]
    Agent(#[source] AgentError),
    /// The frame is not a reply, or not to this request: the peer does not speak the protocol.
    #[error("reply is malformed")]
    Malformed(#[source] serde_json::Error),
    /// The `status` is neither `ok` nor `error`.
    #[error("reply has a status that is neither `ok` nor `error`")]
    UnknownStatus,
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
/// [`EncodeError`] if the reply is longer than a frame.
pub fn encode_reply<T: Serialize>(body: &T) -> Result<Vec<u8>, EncodeError> {
    encode_after(("status", "ok"), body)
}

/// Encodes an error reply as one frame.
///
/// # Errors
///
/// [`EncodeError`] if the reply is longer than a frame.
pub fn encode_error(error: &AgentError) -> Result<Vec<u8>, EncodeError> {
    encode_after(("status", "error"), error)
}

/// Decodes one frame's payload as the reply to a request whose success reply is `T`.
///
/// # Errors
///
/// [`ReplyError::Agent`] is an answer; after the others the stream can no longer be trusted.
pub fn decode_reply<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ReplyError> {
    // Checks the depth of the whole payload, so the decoders below need not.
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
