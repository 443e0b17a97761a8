//! Frames: how a message is cut out of a byte stream.
//!
//! ```text
//!  0               4                      4 + length
//!  ├───────────────┼──────────────────────┤
//!  │ length u32 BE │ payload (JSON)       │
//!  └───────────────┴──────────────────────┘
//!    1 ..= MAX_FRAME_LEN, counts the payload only
//! ```
//!
//! The peer is not trusted with memory: both bounds of a length are checked before anything is
//! reserved for it, and even then room is made only for bytes that are about to be read.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use std::io;

/// Bytes of the length prefix.
pub const PREFIX_LEN: usize = 4;

/// The longest payload, in encoded bytes, in either direction (1 MiB, frozen in the base
/// protocol).
pub const MAX_FRAME_LEN: usize = 1024 * 1024;

/// The most that is reserved ahead of the bytes that have arrived: one message of a byte channel, as
/// long as this crate makes them, in its frame.
const READ_AHEAD: usize = PREFIX_LEN + 1 + 64 * 1024;

/// What an idle decoder starts with: nearly every message is shorter.
const FIRST_READ: usize = 2 * 1024;

/// A length outside its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No message is empty. The frame is still well delimited: [`Decoder::next_frame`] has consumed
    /// it, and the stream can go on.
    #[error("frame is empty")]
    Empty,
    /// The stream can't be followed past this frame.
    #[error("frame of {len} bytes is longer than {MAX_FRAME_LEN}")]
    TooLong {
        /// What the prefix said, or how far encoding came.
        len: usize,
    },
}

/// A message that doesn't go into a frame.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Its bounds.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its JSON: a value that JSON can't hold.
    #[error("message cannot be encoded")]
    Json(#[source] serde_json::Error),
}

/// Encodes `message` as one frame, prefix included.
///
/// # Errors
///
/// [`FrameError::TooLong`] as soon as the encoding passes [`MAX_FRAME_LEN`]: no more than that is
/// ever allocated.
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

/// A `Vec` that refuses to grow past one frame.
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

/// Cuts frames out of a stream, however it is chunked.
///
/// Feed it with [`read_buffer`](Self::read_buffer) (what an `AsyncRead::read_buf` wants) or
/// [`extend`](Self::extend), then take frames until [`next_frame`](Self::next_frame) says `None`.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes of the last frame, if the next one is likely to be as long.
    likely: Option<usize>,
}

impl Decoder {
    /// A decoder at the start of a stream. Holds no memory until it is fed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From here on the next frame is likely to be as long as the last one, as in a stream of output:
    /// room is made for it at once, so that one read brings it. A short frame makes that small again.
    pub fn expect_alike(&mut self) {
        self.likely = Some(0);
    }

    /// True at a frame boundary: nothing of a next frame has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The bytes that have arrived and are not consumed.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.buffer
    }

    /// Bytes of memory held at the moment.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// The buffer to read into, with some room made. A frame whose length is known gets room for
    /// what it still misses, but never more than 64 KiB ahead of what has really arrived.
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

    /// The next complete payload, or `None` until more bytes arrive.
    ///
    /// # Errors
    ///
    /// [`FrameError::Empty`] consumes the empty frame: the next call goes on behind it.
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
            // A connection idles for hours after a large reply; its memory must not.
            self.buffer = BytesMut::new();
        }
        if let Some(likely) = &mut self.likely {
            *likely = len;
        }
        if payload.is_empty() { Err(FrameError::Empty) } else { Ok(Some(payload)) }
    }

    /// What the prefix at the front says, if it has arrived.
    fn announced(&self) -> Option<usize> {
        let prefix = self.buffer.first_chunk::<PREFIX_LEN>()?;
        usize::try_from(u32::from_be_bytes(*prefix)).ok()
    }
}
