//! Numbers and strings of the protocol (RFC 4251, section 5): big-endian, strings with their length in 4 bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Failure of a packet that ends within a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet ends within a value")]
pub(super) struct ShortPacket;

/// Reader of the values of a packet.
#[derive(Debug, Clone)]
pub(super) struct PacketReader(Bytes);

impl PacketReader {
    /// Creates a reader of a packet without its length.
    pub(super) fn new(packet: Bytes) -> Self {
        Self(packet)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ShortPacket> {
        self.0.try_get_u8().map_err(|_| ShortPacket)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ShortPacket> {
        self.0.try_get_u32().map_err(|_| ShortPacket)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ShortPacket> {
        self.0.try_get_u64().map_err(|_| ShortPacket)
    }

    /// Reads a string, which need not be UTF-8.
    pub(super) fn string(&mut self) -> Result<Bytes, ShortPacket> {
        let len = usize::try_from(self.u32()?).map_err(|_| ShortPacket)?;
        if len > self.0.len() {
            return Err(ShortPacket);
        }
        Ok(self.0.split_to(len))
    }
}

/// Writer of one packet.
#[derive(Debug)]
pub(super) struct PacketWriter(BytesMut);

impl PacketWriter {
    /// Begins a packet with its type and the id of the request.
    pub(super) fn new(kind: u8, id: u32) -> Self {
        let mut packet = Self::without_id(kind);
        packet.u32(id);
        packet
    }

    /// Begins a packet with its type.
    pub(super) fn without_id(kind: u8) -> Self {
        let mut bytes = BytesMut::with_capacity(64);
        // The length, which `finish` sets.
        bytes.put_u32(0);
        bytes.put_u8(kind);
        Self(bytes)
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.put_u32(value);
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.put_u64(value);
    }

    pub(super) fn string(&mut self, value: &[u8]) {
        self.0.put_u32(length(value.len()));
        self.0.put_slice(value);
    }

    /// Returns the packet with its length.
    pub(super) fn finish(mut self) -> Bytes {
        let len = length(self.0.len() - 4);
        self.0[..4].copy_from_slice(&len.to_be_bytes());
        self.0.freeze()
    }
}

/// Converts a length. All packets are far below 4 GiB.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
