//! Requests as their sender sees them.

use crate::frame::{EncodeError, encode};
use serde::{Serialize, de::DeserializeOwned};

/// Request as its sender sees it: its name on the wire, its reply, and whether it may be repeated.
pub trait Call: Serialize {
    /// Reply after success.
    type Reply: DeserializeOwned;
    /// Value of `type` on the wire.
    const TYPE: &'static str;
    /// True if the request may be sent again if it is not known whether the first one arrived.
    const IDEMPOTENT: bool;
}

/// Request object: `type`, followed by the fields of the call.
#[derive(Serialize)]
struct TaggedCall<'a, C> {
    r#type: &'static str,
    #[serde(flatten)]
    call: &'a C,
}

/// Encodes a request as one frame.
///
/// # Errors
///
/// [`EncodeError`] if the request is longer than a frame.
pub fn encode_request<C: Call>(call: &C) -> Result<Vec<u8>, EncodeError> {
    encode(&TaggedCall { r#type: C::TYPE, call })
}
