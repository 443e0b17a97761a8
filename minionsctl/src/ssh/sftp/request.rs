//! Requests of a client (section 6 of the draft).

use super::attributes;
use super::extension::ExtendedRequest;
use super::wire::{PacketReader, ShortPacket};
use bytes::Bytes;
use minions_proto::file_session::AttributeChange;

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
const EXTENDED: u8 = 200;

/// Flags of `OPEN`.
pub(super) mod open_flag {
    pub(in super::super) const READ: u32 = 0x01;
    pub(in super::super) const WRITE: u32 = 0x02;
    pub(in super::super) const APPEND: u32 = 0x04;
    pub(in super::super) const CREATE: u32 = 0x08;
    pub(in super::super) const TRUNCATE: u32 = 0x10;
    pub(in super::super) const EXCLUSIVE: u32 = 0x20;
}

/// Packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientPacket {
    /// First packet: the client's version, which may be followed by its extensions.
    Init,
    /// Request with an id, which the reply repeats.
    Request(u32, Result<SftpRequest, ShortPacket>),
}

/// Request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SftpRequest {
    Open {
        path: Bytes,
        flags: u32,
        attributes: AttributeChange,
    },
    Close {
        handle: Bytes,
    },
    Read {
        handle: Bytes,
        offset: u64,
        length: u32,
    },
    Write {
        handle: Bytes,
        offset: u64,
        data: Bytes,
    },
    Stat {
        path: Bytes,
        follow: bool,
    },
    Fstat {
        handle: Bytes,
    },
    Setstat {
        path: Bytes,
        change: AttributeChange,
    },
    Fsetstat {
        handle: Bytes,
        change: AttributeChange,
    },
    Opendir {
        path: Bytes,
    },
    Readdir {
        handle: Bytes,
    },
    Remove {
        path: Bytes,
    },
    Mkdir {
        path: Bytes,
        attributes: AttributeChange,
    },
    Rmdir {
        path: Bytes,
    },
    Realpath {
        path: Bytes,
    },
    Rename {
        from: Bytes,
        to: Bytes,
    },
    Readlink {
        path: Bytes,
    },
    Symlink {
        target: Bytes,
        link: Bytes,
    },
    Extended(ExtendedRequest),
    /// A type that this server does not support.
    Unknown,
}

impl ClientPacket {
    /// Decodes a packet without its length.
    ///
    /// # Errors
    ///
    /// The packet has no id, so the client cannot be answered.
    pub(super) fn decode(packet: Bytes) -> Result<Self, ShortPacket> {
        let mut packet = PacketReader::new(packet);
        let kind = packet.u8()?;
        if kind == INIT {
            return Ok(Self::Init);
        }
        let id = packet.u32()?;
        Ok(Self::Request(id, SftpRequest::read(kind, &mut packet)))
    }
}

impl SftpRequest {
    fn read(kind: u8, packet: &mut PacketReader) -> Result<Self, ShortPacket> {
        Ok(match kind {
            OPEN => Self::Open {
                path: packet.string()?,
                flags: packet.u32()?,
                attributes: attributes::change(packet)?,
            },
            CLOSE => Self::Close { handle: packet.string()? },
            READ => Self::Read {
                handle: packet.string()?,
                offset: packet.u64()?,
                length: packet.u32()?,
            },
            WRITE => Self::Write {
                handle: packet.string()?,
                offset: packet.u64()?,
                data: packet.string()?,
            },
            LSTAT => Self::Stat { path: packet.string()?, follow: false },
            STAT => Self::Stat { path: packet.string()?, follow: true },
            FSTAT => Self::Fstat { handle: packet.string()? },
            SETSTAT => {
                Self::Setstat { path: packet.string()?, change: attributes::change(packet)? }
            }
            FSETSTAT => {
                Self::Fsetstat { handle: packet.string()?, change: attributes::change(packet)? }
            }
            OPENDIR => Self::Opendir { path: packet.string()? },
            READDIR => Self::Readdir { handle: packet.string()? },
            REMOVE => Self::Remove { path: packet.string()? },
            MKDIR => {
                Self::Mkdir { path: packet.string()?, attributes: attributes::change(packet)? }
            }
            RMDIR => Self::Rmdir { path: packet.string()? },
            REALPATH => Self::Realpath { path: packet.string()? },
            RENAME => Self::Rename { from: packet.string()?, to: packet.string()? },
            READLINK => Self::Readlink { path: packet.string()? },
            // OpenSSH, and so all clients, send the target first, unlike the draft.
            SYMLINK => Self::Symlink { target: packet.string()?, link: packet.string()? },
            EXTENDED => Self::Extended(ExtendedRequest::read(packet)?),
            _ => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::PacketWriter;
    use super::*;
    use proptest::prelude::*;

    /// Returns the packet without its length.
    fn packet(kind: u8, fill: impl FnOnce(&mut PacketWriter)) -> Bytes {
        let mut packet = PacketWriter::new(kind, 7);
        fill(&mut packet);
        packet.finish().slice(4..)
    }

    #[test]
    fn requests_are_read_with_names_of_any_bytes() {
        let name = Bytes::from_static(b"/a\xff\n");
        let write = packet(WRITE, |packet| {
            packet.string(b"h");
            packet.u64(1 << 40);
            packet.string(b"data");
        });
        let (handle, data) = (Bytes::from_static(b"h"), Bytes::from_static(b"data"));
        let expected = SftpRequest::Write { handle, offset: 1 << 40, data };
        assert_eq!(ClientPacket::decode(write), Ok(ClientPacket::Request(7, Ok(expected))));
        let symlink = packet(SYMLINK, |packet| {
            packet.string(b"target");
            packet.string(&name);
        });
        let expected =
            SftpRequest::Symlink { target: Bytes::from_static(b"target"), link: name.clone() };
        assert_eq!(ClientPacket::decode(symlink), Ok(ClientPacket::Request(7, Ok(expected))));
        let rename = packet(EXTENDED, |packet| {
            packet.string(b"posix-rename@openssh.com");
            packet.string(&name);
            packet.string(b"b");
        });
        let renamed = ExtendedRequest::PosixRename { from: name, to: Bytes::from_static(b"b") };
        let expected = Ok(SftpRequest::Extended(renamed));
        assert_eq!(ClientPacket::decode(rename), Ok(ClientPacket::Request(7, expected)));
    }

    #[test]
    fn a_short_request_has_an_id_and_a_packet_without_one_is_refused() {
        let short = packet(OPEN, |packet| packet.string(b"/a"));
        assert_eq!(
            ClientPacket::decode(short.clone()),
            Ok(ClientPacket::Request(7, Err(ShortPacket)))
        );
        assert_eq!(ClientPacket::decode(short.slice(..4)), Err(ShortPacket));
        let unknown = packet(99, |_| {});
        assert_eq!(
            ClientPacket::decode(unknown),
            Ok(ClientPacket::Request(7, Ok(SftpRequest::Unknown)))
        );
        assert_eq!(ClientPacket::decode(Bytes::from_static(&[INIT])), Ok(ClientPacket::Init));
    }

    proptest! {
        #[test]
        fn any_packet_is_decoded_without_a_panic(
            kind in prop_oneof![0_u8..21, Just(EXTENDED)],
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = ClientPacket::decode([&[kind][..], &bytes].concat().into());
        }
    }
}
