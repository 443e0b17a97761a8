//! Extensions of OpenSSH (its file `PROTOCOL`, section 4).

use super::attributes;
use super::wire::{PacketReader, ShortPacket};
use bytes::Bytes;
use minions_proto::file_session::AttributeChange;

/// Names and versions of the supported extensions, as the server announces them.
pub(super) const SUPPORTED: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// Request of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExtendedRequest {
    /// Renames a file, and replaces one with the new name.
    PosixRename { from: Bytes, to: Bytes },
    /// Describes the file system of a path.
    Statvfs { path: Bytes },
    /// Describes the file system of an open file.
    Fstatvfs { handle: Bytes },
    /// Creates a hard link.
    Hardlink { from: Bytes, to: Bytes },
    /// Writes an open file to disk.
    Fsync { handle: Bytes },
    /// Changes attributes of a file; a symbolic link is not followed.
    Lsetstat { path: Bytes, change: AttributeChange },
    /// Reports the limits of the server.
    Limits,
    /// Resolves a path that may begin with `~`.
    ExpandPath { path: Bytes },
    /// An extension that this server does not support.
    Unknown,
}

impl ExtendedRequest {
    /// Reads the name and the fields of a request.
    pub(super) fn read(packet: &mut PacketReader) -> Result<Self, ShortPacket> {
        let name = packet.string()?;
        Ok(match &name[..] {
            b"posix-rename@openssh.com" => {
                Self::PosixRename { from: packet.string()?, to: packet.string()? }
            }
            b"statvfs@openssh.com" => Self::Statvfs { path: packet.string()? },
            b"fstatvfs@openssh.com" => Self::Fstatvfs { handle: packet.string()? },
            b"hardlink@openssh.com" => {
                Self::Hardlink { from: packet.string()?, to: packet.string()? }
            }
            b"fsync@openssh.com" => Self::Fsync { handle: packet.string()? },
            b"lsetstat@openssh.com" => {
                Self::Lsetstat { path: packet.string()?, change: attributes::change(packet)? }
            }
            b"limits@openssh.com" => Self::Limits,
            b"expand-path@openssh.com" => Self::ExpandPath { path: packet.string()? },
            _ => Self::Unknown,
        })
    }
}
