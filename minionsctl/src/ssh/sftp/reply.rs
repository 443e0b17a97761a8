//! Replies of the server (section 7 of the draft).

use super::attributes;
use super::error::SftpError;
use super::extension::SUPPORTED;
use super::long_name;
use super::packet_decoder::MAX_PACKET;
use super::status::StatusCode;
use super::wire::PacketWriter;
use crate::output::harmless_line;
use bytes::Bytes;
use minions_proto::file_session::{
    FilesystemSpace, MAX_HANDLES, SessionEntry, SessionMetadata, SessionResult,
};
use minions_proto::file_stream::FileFailure;

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// Version of the protocol.
const VERSION_NUMBER: u32 = 3;

/// Largest number of bytes of one `READ` or `WRITE`: a packet, without 1 KiB for its other fields, as in OpenSSH.
pub(super) const MAX_TRANSFER: u32 = 255 * 1024;

/// Flags of a file system in the reply to `statvfs@openssh.com`.
const READ_ONLY: u64 = 1;
const NO_SET_ID: u64 = 2;

/// Form of the reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyForm {
    /// `STATUS`.
    Status,
    /// `HANDLE`.
    Handle,
    /// `DATA`, or `STATUS` at the end of the file.
    Data {
        /// Number of bytes that the client asked for.
        most: u32,
    },
    /// `ATTRS`.
    Attributes,
    /// `NAME` with one name.
    Path,
    /// `NAME` with the entries of a directory, or `STATUS` at their end.
    Entries,
    /// `EXTENDED_REPLY` with the size of a file system.
    Space,
}

/// Returns the reply to the client's first packet.
pub(super) fn version() -> Bytes {
    let mut packet = PacketWriter::without_id(VERSION);
    packet.u32(VERSION_NUMBER);
    for (name, version) in SUPPORTED {
        packet.string(name.as_bytes());
        packet.string(version.as_bytes());
    }
    packet.finish()
}

/// Returns the reply to `limits@openssh.com`.
pub(super) fn limits(id: u32) -> Bytes {
    let mut packet = PacketWriter::new(EXTENDED_REPLY, id);
    packet.u64(MAX_PACKET as u64);
    packet.u64(MAX_TRANSFER.into());
    packet.u64(MAX_TRANSFER.into());
    packet.u64(MAX_HANDLES as u64);
    packet.finish()
}

/// Returns a `STATUS`.
pub(super) fn status(id: u32, code: StatusCode, message: &str) -> Bytes {
    let mut packet = PacketWriter::new(STATUS, id);
    packet.u32(code.number());
    packet.string(message.as_bytes());
    packet.string(b"en");
    packet.finish()
}

/// Returns the reply for the result of a request.
///
/// # Errors
///
/// [`SftpError::Mismatch`]: the result has another type than the request needs, more data than the client asked for, or
/// a name that no file can have.
pub(super) fn of_result(
    id: u32,
    form: ReplyForm,
    result: &SessionResult,
    data: &[u8],
) -> Result<Bytes, SftpError> {
    Ok(match (form, result) {
        (_, SessionResult::Failed(failure)) => failed(id, failure),
        (ReplyForm::Status, SessionResult::Done) => status(id, StatusCode::Ok, "success"),
        (ReplyForm::Handle, SessionResult::Handle { handle }) => {
            let mut packet = PacketWriter::new(HANDLE, id);
            packet.string(&handle.to_be_bytes());
            packet.finish()
        }
        (ReplyForm::Data { .. }, SessionResult::Data) if data.is_empty() => {
            status(id, StatusCode::EndOfFile, "end of file")
        }
        (ReplyForm::Data { most }, SessionResult::Data)
            if u32::try_from(data.len()).is_ok_and(|len| len <= most) =>
        {
            let mut packet = PacketWriter::new(DATA, id);
            packet.string(data);
            packet.finish()
        }
        (ReplyForm::Attributes, SessionResult::Metadata(metadata)) => {
            let mut packet = PacketWriter::new(ATTRS, id);
            attributes::put(&mut packet, Some(metadata));
            packet.finish()
        }
        (ReplyForm::Path, SessionResult::Path(path)) => {
            let path = path.bytes().filter(|path| !path.is_empty() && !path.contains(&0));
            let path = path.ok_or(SftpError::Mismatch)?;
            names(id, &[(path, None)])
        }
        (ReplyForm::Entries, SessionResult::Entries { entries }) if entries.is_empty() => {
            status(id, StatusCode::EndOfFile, "end of directory")
        }
        (ReplyForm::Entries, SessionResult::Entries { entries }) => names(id, &named(entries)?),
        (ReplyForm::Space, SessionResult::Space(space)) => filesystem(id, space),
        _ => return Err(SftpError::Mismatch),
    })
}

fn failed(id: u32, failure: &FileFailure) -> Bytes {
    // The guest has written the message, and the client may show it on a terminal.
    status(id, StatusCode::of_errno(&failure.errno), &harmless_line(&failure.message))
}

type NamedFile<'a> = (Vec<u8>, Option<&'a SessionMetadata>);

fn named(entries: &[SessionEntry]) -> Result<Vec<NamedFile<'_>>, SftpError> {
    let entries = entries.iter().map(|entry| {
        let name = entry.name_bytes().filter(|name| is_name(name)).ok_or(SftpError::Mismatch)?;
        Ok((name, entry.metadata.as_ref()))
    });
    entries.collect()
}

/// Reports whether a file of a directory can have this name. A client that copies a directory creates files of these
/// names, so a guest must not name files outside of it. Control characters are permitted.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

fn names(id: u32, files: &[NamedFile<'_>]) -> Bytes {
    let mut packet = PacketWriter::new(NAME, id);
    packet.u32(u32::try_from(files.len()).unwrap_or(u32::MAX));
    for (name, metadata) in files {
        packet.string(name);
        // The reply to READLINK and REALPATH has no attributes; its second name is never shown.
        match metadata {
            Some(_) => packet.string(&long_name::line(name, *metadata)),
            None => packet.string(name),
        }
        attributes::put(&mut packet, *metadata);
    }
    packet.finish()
}

fn filesystem(id: u32, space: &FilesystemSpace) -> Bytes {
    let flag = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
    let flags = flag(space.read_only, READ_ONLY) | flag(space.no_set_id, NO_SET_ID);
    let mut packet = PacketWriter::new(EXTENDED_REPLY, id);
    for number in [
        space.block_size,
        space.fragment_size,
        space.blocks,
        space.blocks_free,
        space.blocks_available,
        space.files,
        space.files_free,
        space.files_available,
        space.filesystem_id,
        flags,
        space.name_max,
    ] {
        packet.u64(number);
    }
    packet.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::file_session::SessionPath;
    use minions_proto::message::GuestPath;

    #[test]
    fn names_of_the_guest_are_names_in_its_directory() {
        let reply_to = |name: &[u8]| {
            let entries = vec![SessionEntry::new(b"a", None), SessionEntry::new(name, None)];
            of_result(1, ReplyForm::Entries, &SessionResult::Entries { entries }, b"")
        };
        let traversal = b"../../.ssh/authorized_keys";
        for name in [&traversal[..], b"/etc/passwd", b"a/", b"", b"a\0b"] {
            let reply = reply_to(name);
            assert!(matches!(reply, Err(SftpError::Mismatch)), "{name:?}: {reply:?}");
        }
        for name in [&b"."[..], b"..", b"odd\xff\n\x1b[31m", b"..."] {
            assert!(reply_to(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn paths_of_the_guest_are_neither_empty_nor_have_a_nul() {
        let reply_to = |path: &[u8]| {
            let path = SessionPath { path: GuestPath::new(path) };
            of_result(1, ReplyForm::Path, &SessionResult::Path(path), b"")
        };
        for path in [&b""[..], b"/a\0b"] {
            let reply = reply_to(path);
            assert!(matches!(reply, Err(SftpError::Mismatch)), "{path:?}: {reply:?}");
        }
        assert!(reply_to(b"../a/b").is_ok());
    }

    #[test]
    fn data_is_at_most_what_the_client_asked_for() {
        let reply_to =
            |data: &[u8]| of_result(1, ReplyForm::Data { most: 3 }, &SessionResult::Data, data);
        assert_eq!(reply_to(b"abc").unwrap()[9..], *b"\0\0\0\x03abc");
        assert!(matches!(reply_to(b"abcd"), Err(SftpError::Mismatch)));
        assert_eq!(reply_to(b"").unwrap(), status(1, StatusCode::EndOfFile, "end of file"));
    }
}
