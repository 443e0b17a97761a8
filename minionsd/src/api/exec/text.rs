//! Conversion of a stream's bytes to chunks of text, without splitting a character.

use bytes::Bytes;
use minions_api::exec::Chunk;
use minions_proto::collect::whole_prefix_len;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Converter of one stream.
#[derive(Debug, Default)]
pub(super) struct TextDecoder {
    /// Bytes of an incomplete character at the end of the stream so far: up to 3.
    begun: Vec<u8>,
    /// Offset of the first of these bytes.
    offset: u64,
}

impl TextDecoder {
    /// Adds bytes that begin at `offset`; returns a chunk of all complete characters.
    pub(super) fn push(&mut self, offset: u64, bytes: Bytes) -> Option<Chunk> {
        let (offset, bytes) = if self.begun.is_empty() {
            (offset, bytes)
        } else {
            (self.offset, [&self.begun[..], &bytes].concat().into())
        };
        let whole = whole_prefix_len(&bytes);
        self.begun = bytes[whole..].to_vec();
        self.offset = offset + whole as u64;
        chunk(offset, &bytes[..whole])
    }

    /// Returns the incomplete character as the last chunk, because no more bytes follow.
    pub(super) fn flush(&mut self) -> Option<Chunk> {
        chunk(self.offset, &std::mem::take(&mut self.begun))
    }
}

fn chunk(offset: u64, bytes: &[u8]) -> Option<Chunk> {
    if bytes.is_empty() {
        return None;
    }
    Some(match std::str::from_utf8(bytes) {
        Ok(text) => Chunk { offset, data: Some(text.to_owned()), data_base64: None },
        Err(_) => Chunk { offset, data: None, data_base64: Some(STANDARD.encode(bytes)) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(bytes: &[u8], size: usize) -> Vec<Chunk> {
        let (mut text, mut chunks, mut offset) = (TextDecoder::default(), Vec::new(), 0);
        for piece in bytes.chunks(size) {
            chunks.extend(text.push(offset, Bytes::copy_from_slice(piece)));
            offset += piece.len() as u64;
        }
        chunks.extend(text.flush());
        chunks
    }

    fn bytes(chunks: &[Chunk]) -> Vec<u8> {
        let mut all = Vec::new();
        for Chunk { offset, data, data_base64 } in chunks {
            assert_eq!(*offset, all.len() as u64);
            match (data, data_base64) {
                (Some(text), None) => all.extend(text.bytes()),
                (None, Some(base64)) => all.extend(STANDARD.decode(base64).unwrap()),
                both => panic!("{both:?}"),
            }
        }
        all
    }

    #[test]
    fn a_character_is_never_split_for_any_chunking() {
        let text = "aä€🦀z".repeat(20);
        for size in 1..9 {
            let chunks = chunks(text.as_bytes(), size);
            assert!(chunks.iter().all(|chunk| chunk.data.is_some()), "by {size}");
            assert_eq!(bytes(&chunks), text.as_bytes(), "by {size}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_preserved() {
        for junk in
            [&b"\xff\xfe"[..], b"a\xe2\x82", b"\xe2\x82a", b"\xf0\x9f\xf0\x9f\xa6\x80", b"\x80"]
        {
            for size in 1..5 {
                assert_eq!(bytes(&chunks(junk, size)), junk, "{junk:?} by {size}");
            }
        }
        assert_eq!(chunks(b"", 1), []);
    }
}
