//! Packets of a stream.

use bytes::{Buf, Bytes, BytesMut};

/// Longest packet of a client, in bytes without its length: that of OpenSSH's server (`SFTP_MAX_MSG_LENGTH`).
pub(super) const MAX_PACKET: usize = 256 * 1024;

/// A packet of an invalid length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {len} bytes: must have 1 to {MAX_PACKET}")]
pub(super) struct PacketLength {
    /// Length in the prefix.
    len: usize,
}

/// Splits a stream into packets, regardless of how it is chunked.
#[derive(Debug, Default)]
pub(super) struct PacketDecoder {
    buffer: BytesMut,
}

impl PacketDecoder {
    /// Adds bytes of the stream. The caller takes all complete packets before it adds more.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete packet without its length, or `None` until more bytes arrive.
    pub(super) fn next_packet(&mut self) -> Result<Option<Bytes>, PacketLength> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len == 0 || len > MAX_PACKET {
            return Err(PacketLength { len });
        }
        if self.buffer.len() < 4 + len {
            self.buffer.reserve(4 + len - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_outside_of_the_limits_is_refused_before_its_packet_arrives() {
        for len in [0, MAX_PACKET + 1, u32::MAX as usize] {
            let mut decoder = PacketDecoder::default();
            decoder.extend(&u32::try_from(len).unwrap().to_be_bytes());
            assert_eq!(decoder.next_packet(), Err(PacketLength { len }));
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_packets(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            chunk in 1_usize..64,
        ) {
            let mut stream = Vec::new();
            for packet in &packets {
                stream.extend_from_slice(&u32::try_from(packet.len()).unwrap().to_be_bytes());
                stream.extend_from_slice(packet);
            }
            let mut decoder = PacketDecoder::default();
            let mut decoded = Vec::new();
            for part in stream.chunks(chunk) {
                decoder.extend(part);
                while let Some(packet) = decoder.next_packet().unwrap() {
                    decoded.push(packet.to_vec());
                }
            }
            prop_assert_eq!(decoded, packets);
        }
    }
}
