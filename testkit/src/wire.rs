//! Bytes of the wire, for scripted peers.

use std::fmt::Display;

/// Returns a frame: the length of `json` in four bytes, then `json`, which may be invalid.
///
/// # Panics
///
/// Panics if the length does not fit into four bytes.
#[must_use]
pub fn framed(json: impl Display) -> Vec<u8> {
    let json = json.to_string();
    let length =
        u32::try_from(json.len()).expect("the length of a test's frame fits into four bytes");
    [&length.to_be_bytes()[..], json.as_bytes()].concat()
}
