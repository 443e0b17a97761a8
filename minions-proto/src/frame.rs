//! Frames: the boundaries of messages in a byte stream.
//!
//! ```text
//!  0               4                      4 + length
//!  ├───────────────┼──────────────────────┤
//!  │ length u32 BE │ payload (JSON)       │
//!  └───────────────┴──────────────────────┘
//!    1 ..= MAX_FRAME_LEN, counts the payload only
//! ```
//!
//! The peer is not trusted with memory: both bounds of a length are checked before memory is
//! reserved for it, and even then only for bytes that are about to be read.

use crate::json::JsonSink;
use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::ser::Error;

/// Size of the length prefix, in bytes.
pub const PREFIX_LEN: usize = 4;

/// Longest payload, in encoded bytes, in either direction: 1 MiB, frozen in the base protocol.
pub const MAX_FRAME_LEN: usize = 1024 * 1024;

/// Largest number of bytes reserved ahead of those that have arrived: one frame with the longest
/// message of a byte channel that this crate sends.
const READ_AHEAD: usize = PREFIX_LEN + 1 + 64 * 1024;

/// Initial read size of an idle decoder, in bytes; nearly every message is shorter.
const FIRST_READ: usize = 2 * 1024;

/// Frame length outside of its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is empty, and no message is. [`Decoder::next_frame`] has consumed the frame, and
    /// the stream can continue.
    #[error("frame is empty")]
    Empty,
    /// The frame is too long. The rest of the stream cannot be decoded.
    #[error("frame of {len} bytes is longer than {MAX_FRAME_LEN}")]
    TooLong {
        /// Length in the prefix, or bytes encoded until the limit.
        len: usize,
    },
}

/// Reason why a message cannot be encoded as a frame.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The encoding exceeds the bounds of a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The message contains a value that JSON cannot represent.
    #[error("message cannot be encoded")]
    Json(#[source] serde_json::Error),
}

/// Encodes `message` as one frame, prefix included.
///
/// # Errors
///
/// [`FrameError::TooLong`] as soon as the encoding exceeds [`MAX_FRAME_LEN`]: never allocates more
/// than that.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, EncodeError> {
    let mut sink = FrameSink::new();
    let written = serde_json::to_writer(&mut sink.0, message);
    sink.into_frame(written)
}

/// Encodes the object `rest` as one frame, with a member in front of its own. Neither the name nor the value of that
/// member may contain characters that JSON escapes.
///
/// `#[serde(flatten)]` has the same result, but brings a second copy of the code for each type.
///
/// # Errors
///
/// Those of [`encode`], and [`EncodeError::Json`] if `rest` is not an object.
pub(crate) fn encode_after<T: Serialize + ?Sized>(
    (name, value): (&str, &str),
    rest: &T,
) -> Result<Vec<u8>, EncodeError> {
    let mut sink = FrameSink::new();
    for part in ["{\"", name, "\":\"", value, "\""] {
        sink.0.bytes.extend_from_slice(part.as_bytes());
    }
    let begin = sink.0.bytes.len();
    let written = serde_json::to_writer(&mut sink.0, rest);
    let joined = written.and_then(|()| sink.join_object(begin));
    sink.into_frame(joined)
}

/// Payload of a frame while it is encoded. It refuses to grow beyond one frame.
struct FrameSink(JsonSink);

impl FrameSink {
    fn new() -> Self {
        let mut sink = JsonSink::bounded(PREFIX_LEN + MAX_FRAME_LEN);
        sink.bytes.extend_from_slice(&[0; PREFIX_LEN]);
        Self(sink)
    }

    /// Turns the object that begins at `begin` into further members of the object before it.
    fn join_object(&mut self, begin: usize) -> serde_json::Result<()> {
        match self.0.bytes.get(begin..) {
            Some(b"{}") => _ = self.0.bytes.remove(begin),
            Some([b'{', ..]) => self.0.bytes[begin] = b',',
            _ => return Err(serde_json::Error::custom("the message is not an object")),
        }
        Ok(())
    }

    /// Returns the frame, once its payload was `written`.
    fn into_frame(self, written: serde_json::Result<()>) -> Result<Vec<u8>, EncodeError> {
        let JsonSink { mut bytes, has_overflowed, .. } = self.0;
        let payload_len = bytes.len() - PREFIX_LEN;
        if has_overflowed {
            return Err(FrameError::TooLong { len: payload_len }.into());
        }
        written.map_err(EncodeError::Json)?;
        if payload_len == 0 {
            return Err(FrameError::Empty.into());
        }
        let prefix =
            u32::try_from(payload_len).map_err(|_| FrameError::TooLong { len: payload_len })?;
        bytes[..PREFIX_LEN].copy_from_slice(&prefix.to_be_bytes());
        Ok(bytes)
    }
}

/// Incremental decoder: splits a stream into frames, regardless of how it is chunked.
///
/// Feed it through [`read_buffer`](Self::read_buffer) (for `AsyncRead::read_buf`) or
/// [`extend`](Self::extend), then call [`next_frame`](Self::next_frame) until it returns `None`.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Length of the last frame in bytes, if the next one is likely to be as long.
    likely: Option<usize>,
}

impl Decoder {
    /// Creates a decoder for the start of a stream. It holds no memory until it is fed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares that each frame is likely to be as long as the one before it, as in a stream of
    /// output: room is then reserved in advance, so that one read fetches it. A short frame reduces
    /// the room again.
    pub fn expect_alike(&mut self) {
        self.likely = Some(0);
    }

    /// Reports whether the decoder is at a frame boundary: no byte of a next frame has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Returns the bytes that have arrived and are not consumed yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.buffer
    }

    /// Returns the number of bytes of memory that the decoder holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Returns the buffer to read into, with room reserved. For a frame of known length this is the
    /// missing part, but never more than 64 KiB beyond the bytes that have arrived.
    pub fn read_buffer(&mut self) -> &mut BytesMut {
        let missing = match self.announced() {
            Some(len) if len <= MAX_FRAME_LEN => {
                (PREFIX_LEN + len).saturating_sub(self.buffer.len())
            }
            _ => self.likely.map_or(FIRST_READ, |len| FIRST_READ.max(PREFIX_LEN + len)),
        };
        self.buffer.reserve(missing.clamp(1, READ_AHEAD));
        &mut self.buffer
    }

    /// Appends bytes that were read elsewhere.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete payload, or `None` until more bytes arrive.
    ///
    /// # Errors
    ///
    /// [`FrameError::Empty`] consumes the empty frame; the next call continues after it.
    /// [`FrameError::TooLong`] consumes nothing and is final.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(len) = self.announced() else { return Ok(None) };
        if len > MAX_FRAME_LEN {
            return Err(FrameError::TooLong { len });
        }
        if self.buffer.len() < PREFIX_LEN + len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_LEN);
        let payload = self.buffer.split_to(len).freeze();
        if self.buffer.is_empty() {
            // An idle connection must not hold the memory of its last reply for hours.
            self.buffer = BytesMut::new();
        }
        if let Some(likely) = &mut self.likely {
            *likely = len;
        }
        if payload.is_empty() { Err(FrameError::Empty) } else { Ok(Some(payload)) }
    }

    /// Returns the length in the next frame's prefix, if the prefix has arrived.
    fn announced(&self) -> Option<usize> {
        let prefix = self.buffer.first_chunk::<PREFIX_LEN>()?;
        usize::try_from(u32::from_be_bytes(*prefix)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(rest: &serde_json::Value) -> Result<Vec<u8>, EncodeError> {
        let frame = encode_after(("status", "ok"), rest)?;
        let len = u32::from_be_bytes(*frame.first_chunk().unwrap());
        assert_eq!(len as usize, frame.len() - PREFIX_LEN);
        Ok(frame[PREFIX_LEN..].to_vec())
    }

    #[test]
    fn an_object_follows_the_member_in_front_of_it() {
        assert_eq!(after(&json!({})).unwrap(), br#"{"status":"ok"}"#);
        assert_eq!(after(&json!({"a": {}})).unwrap(), br#"{"status":"ok","a":{}}"#);
    }

    #[test]
    fn a_message_that_is_not_an_object_cannot_be_encoded() {
        for rest in [json!([]), json!("text"), json!(1)] {
            assert!(matches!(after(&rest), Err(EncodeError::Json(_))), "{rest}");
        }
    }

    #[test]
    fn the_limit_includes_the_member_in_front() {
        let overhead = after(&json!({"a": ""})).unwrap().len();
        let text = |len| json!({ "a": "x".repeat(len) });
        assert_eq!(after(&text(MAX_FRAME_LEN - overhead)).unwrap().len(), MAX_FRAME_LEN);
        let too_long = after(&text(MAX_FRAME_LEN - overhead + 1));
        assert!(matches!(too_long, Err(EncodeError::Frame(FrameError::TooLong { .. }))));
    }
}
