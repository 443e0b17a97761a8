//! Frames of a file session.

use crate::json;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest head, in bytes: two paths of 4095 bytes, escaped and also in base64.
pub const MAX_HEAD_LEN: usize = 64 * 1024;

/// Longest data, in bytes: the largest packet of SFTP clients.
pub const MAX_DATA_LEN: usize = 256 * 1024;

/// Longest content of a frame, in bytes.
pub const MAX_CONTENT_LEN: usize = PREFIX_LEN + MAX_HEAD_LEN + MAX_DATA_LEN;

/// Size of each of the two lengths, in bytes.
const PREFIX_LEN: usize = 4;

/// Violation of the form of a file session by a peer.
#[derive(Debug, thiserror::Error)]
pub enum SessionFrameError {
    /// The frame is longer than [`MAX_CONTENT_LEN`], or too short for its head length.
    #[error("frame of {len} bytes: must have {} to {MAX_CONTENT_LEN}", PREFIX_LEN + 1)]
    Length {
        /// Length in the prefix.
        len: usize,
    },
    /// The head is empty, longer than [`MAX_HEAD_LEN`], or longer than the frame.
    #[error("head of {len} bytes: must have 1 to {MAX_HEAD_LEN}, and fit in its frame")]
    HeadLength {
        /// Length of the head in the frame.
        len: usize,
    },
    /// The data is longer than [`MAX_DATA_LEN`].
    #[error("data of {len} bytes: must have at most {MAX_DATA_LEN}")]
    DataLength {
        /// Length of the data.
        len: usize,
    },
    /// The head is not the expected JSON.
    #[error("malformed head")]
    Head(#[source] serde_json::Error),
}

/// Head and data of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionMessage {
    /// JSON of the request or the answer.
    pub head: Bytes,
    /// Bytes of a file.
    pub data: Bytes,
}

impl SessionMessage {
    /// Creates a message.
    ///
    /// # Errors
    ///
    /// [`SessionFrameError::HeadLength`], [`SessionFrameError::DataLength`],
    /// [`SessionFrameError::Head`].
    pub fn new(head: &impl Serialize, data: Bytes) -> Result<Self, SessionFrameError> {
        let head = json::to_vec(head).map_err(SessionFrameError::Head)?;
        let message = Self { head: head.into(), data };
        message.check()?;
        Ok(message)
    }

    /// Decodes the content of a frame.
    ///
    /// # Errors
    ///
    /// All variants of [`SessionFrameError`] except [`SessionFrameError::Head`].
    pub fn decode(mut content: Bytes) -> Result<Self, SessionFrameError> {
        if content.len() <= PREFIX_LEN || content.len() > MAX_CONTENT_LEN {
            return Err(SessionFrameError::Length { len: content.len() });
        }
        let len = usize::try_from(content.get_u32()).unwrap_or(usize::MAX);
        if len > content.len() {
            return Err(SessionFrameError::HeadLength { len });
        }
        let head = content.split_to(len);
        let message = Self { head, data: content };
        message.check()?;
        Ok(message)
    }

    /// Decodes the JSON of the head.
    ///
    /// # Errors
    ///
    /// [`SessionFrameError::Head`].
    pub fn head<T: DeserializeOwned>(&self) -> Result<T, SessionFrameError> {
        json::from_slice(&self.head).map_err(SessionFrameError::Head)
    }

    /// Returns the content of the frame, as one WebSocket message.
    #[must_use]
    pub fn content(&self) -> Bytes {
        let mut content = BytesMut::with_capacity(self.content_len());
        self.put_content(&mut content);
        content.freeze()
    }

    /// Appends the message as one frame.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(PREFIX_LEN + self.content_len());
        put_len(out, self.content_len());
        self.put_content(out);
    }

    fn put_content(&self, out: &mut BytesMut) {
        put_len(out, self.head.len());
        out.put_slice(&self.head);
        out.put_slice(&self.data);
    }

    fn content_len(&self) -> usize {
        PREFIX_LEN + self.head.len() + self.data.len()
    }

    fn check(&self) -> Result<(), SessionFrameError> {
        match (self.head.len(), self.data.len()) {
            (len, _) if len == 0 || len > MAX_HEAD_LEN => {
                Err(SessionFrameError::HeadLength { len })
            }
            (_, len) if len > MAX_DATA_LEN => Err(SessionFrameError::DataLength { len }),
            _ => Ok(()),
        }
    }
}

fn put_len(out: &mut BytesMut, len: usize) {
    // Both lengths are below MAX_CONTENT_LEN, unless a caller has set the fields to more.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// Splits a stream into frames, regardless of how it is chunked.
#[derive(Debug, Default)]
pub struct SessionDecoder {
    buffer: BytesMut,
}

impl SessionDecoder {
    /// Adds bytes of the stream. The caller takes all complete frames before it adds more, so that
    /// at most one frame and one chunk are in memory.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Reports whether no byte of a next frame has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Returns the next complete message, or `None` until more bytes arrive.
    ///
    /// # Errors
    ///
    /// As [`SessionMessage::decode`]. The rest of the stream cannot be decoded.
    pub fn next_message(&mut self) -> Result<Option<SessionMessage>, SessionFrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len <= PREFIX_LEN || len > MAX_CONTENT_LEN {
            return Err(SessionFrameError::Length { len });
        }
        if self.buffer.len() < PREFIX_LEN + len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_LEN);
        let content = self.buffer.split_to(len).freeze();
        SessionMessage::decode(content).map(Some)
    }
}
