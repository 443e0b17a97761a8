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

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use std::io;

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
    let mut sink = BoundedSink { bytes: vec![0; PREFIX_LEN], overflowed: false };
    let written = serde_json::to_writer(&mut sink, message);
    let payload_len = sink.bytes.len() - PREFIX_LEN;
    if sink.overflowed {
        return Err(FrameError::TooLong { len: payload_len }.into());
    }
    written.map_err(EncodeError::Json)?;
    if payload_len == 0 {
        return Err(FrameError::Empty.into());
    }
    let prefix =
        u32::try_from(payload_len).map_err(|_| FrameError::TooLong { len: payload_len })?;
    sink.bytes[..PREFIX_LEN].copy_from_slice(&prefix.to_be_bytes());
    Ok(sink.bytes)
}

/// Buffer that refuses to grow beyond one frame.
struct BoundedSink {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl io::Write for BoundedSink {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if self.bytes.len() - PREFIX_LEN + chunk.len() > MAX_FRAME_LEN {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
