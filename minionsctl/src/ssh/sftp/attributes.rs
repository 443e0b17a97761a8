//! Metadata of a file (section 5 of the draft).

use super::wire::{PacketReader, PacketWriter, ShortPacket};
use minions_proto::file_session::{AttributeChange, SessionMetadata};
use minions_proto::file_stream::FileKind;

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// Owner or group that is kept: -1.
const KEPT_ID: u32 = u32::MAX;

/// Permission bits of a mode.
const MODE_BITS: u32 = 0o7777;

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// Reads the attributes that a client wants to change.
pub(super) fn change(packet: &mut PacketReader) -> Result<AttributeChange, ShortPacket> {
    let flags = packet.u32()?;
    let mut change = AttributeChange::default();
    if flags & SIZE != 0 {
        change.size = Some(packet.u64()?);
    }
    if flags & OWNER != 0 {
        // sshfs passes the value of chown(2) on, in which -1 keeps the owner or the group.
        change.uid = Some(packet.u32()?).filter(|uid| *uid != KEPT_ID);
        change.gid = Some(packet.u32()?).filter(|gid| *gid != KEPT_ID);
    }
    if flags & PERMISSIONS != 0 {
        // The type of a file cannot change.
        change.mode = Some(packet.u32()? & MODE_BITS);
    }
    if flags & TIMES != 0 {
        change.atime_ns = Some(i64::from(packet.u32()?) * NANOS);
        change.mtime_ns = Some(i64::from(packet.u32()?) * NANOS);
    }
    if flags & EXTENDED != 0 {
        let count = packet.u32()?;
        for _ in 0..count {
            packet.string()?;
            packet.string()?;
        }
    }
    Ok(change)
}

/// Writes the metadata of a file; without any if it is unknown.
pub(super) fn put(packet: &mut PacketWriter, metadata: Option<&SessionMetadata>) {
    let Some(metadata) = metadata else { return packet.u32(0) };
    packet.u32(SIZE | OWNER | PERMISSIONS | TIMES);
    packet.u64(metadata.size);
    packet.u32(metadata.uid);
    packet.u32(metadata.gid);
    packet.u32(type_bits(metadata.kind) | (metadata.mode & MODE_BITS));
    packet.u32(seconds(metadata.atime_ns));
    packet.u32(seconds(metadata.mtime_ns));
}

/// Returns the time in seconds since 1970; the protocol has no times before it, and none after 2106.
fn seconds(nanoseconds: i64) -> u32 {
    u32::try_from(nanoseconds.div_euclid(NANOS).max(0)).unwrap_or(u32::MAX)
}

/// Returns the type of a file as in `st_mode` (inode(7)).
fn type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => 0o100_000,
        FileKind::Directory => 0o040_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Fifo => 0o010_000,
        FileKind::Socket => 0o140_000,
        FileKind::CharDevice => 0o020_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::Other => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(kind: FileKind, mtime_ns: i64) -> SessionMetadata {
        let (size, mode) = (1 << 40, 0o4755);
        SessionMetadata { kind, size, mode, uid: 7, gid: 8, nlink: 1, atime_ns: -1, mtime_ns }
    }

    fn written(metadata: Option<&SessionMetadata>) -> Vec<u8> {
        let mut packet = PacketWriter::without_id(0);
        put(&mut packet, metadata);
        packet.finish()[5..].to_vec()
    }

    #[test]
    fn metadata_has_the_bytes_of_the_draft() {
        let expected = [
            &[0, 0, 0, 15][..],
            &[0, 0, 1, 0, 0, 0, 0, 0],
            &[0, 0, 0, 7, 0, 0, 0, 8],
            &0o104_755_u32.to_be_bytes(),
            &[0, 0, 0, 0],
            &[0, 0, 0, 3],
        ]
        .concat();
        assert_eq!(written(Some(&metadata(FileKind::File, 3_999_999_999))), expected);
        assert_eq!(written(None), [0; 4]);
        let late = written(Some(&metadata(FileKind::Directory, i64::MAX)));
        assert_eq!(late[28..], u32::MAX.to_be_bytes());
    }

    #[test]
    fn an_owner_or_a_group_of_minus_one_is_kept() {
        for (uid, gid, expected) in [
            (KEPT_ID, 7, (None, Some(7))),
            (7, KEPT_ID, (Some(7), None)),
            (KEPT_ID, KEPT_ID, (None, None)),
            (0, KEPT_ID - 1, (Some(0), Some(KEPT_ID - 1))),
        ] {
            let mut packet = PacketWriter::without_id(0);
            [OWNER, uid, gid].into_iter().for_each(|value| packet.u32(value));
            let read = change(&mut PacketReader::new(packet.finish().slice(5..))).unwrap();
            assert_eq!((read.uid, read.gid), expected);
        }
    }

    #[test]
    fn changes_are_read_with_the_fields_in_their_order() {
        let mut packet = PacketWriter::without_id(0);
        packet.u32(SIZE | OWNER | PERMISSIONS | TIMES | EXTENDED);
        packet.u64(5);
        [1, 2, 0o100_644, 3, 4, 1].into_iter().for_each(|value| packet.u32(value));
        packet.string(b"name@example.org");
        packet.string(b"data");
        let bytes = packet.finish().slice(5..);
        let expected = AttributeChange {
            size: Some(5),
            mode: Some(0o644),
            uid: Some(1),
            gid: Some(2),
            atime_ns: Some(3 * NANOS),
            mtime_ns: Some(4 * NANOS),
        };
        assert_eq!(change(&mut PacketReader::new(bytes.clone())), Ok(expected));
        for len in 0..bytes.len() {
            let short = bytes.slice(..len);
            assert_eq!(change(&mut PacketReader::new(short)), Err(ShortPacket), "{len}");
        }
    }
}
