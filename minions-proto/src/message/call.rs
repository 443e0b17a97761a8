//! Requests as their sender sees them.

use crate::frame::{EncodeError, encode_after};
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

/// Encodes a request as one frame: `type`, followed by the fields of the call.
///
/// # Errors
///
/// [`EncodeError`] if the request is longer than a frame.
pub fn encode_request<C: Call>(call: &C) -> Result<Vec<u8>, EncodeError> {
    encode_after(("type", C::TYPE), call)
}
