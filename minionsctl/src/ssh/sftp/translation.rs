//! Translation of requests to those of a file session.

use super::extension::ExtendedRequest;
use super::reply::{self, MAX_TRANSFER, ReplyForm};
use super::request::{ClientPacket, SftpRequest, open_flag};
use super::status::StatusCode;
use bytes::Bytes;
use minions_proto::file_session::{
    LinkFile, MakeSessionDirectory, OpenDirectory, OpenFile, PathRequest, ReadAt, RenameEntry,
    SessionHandle, SessionOperation, SetAttributes, SetHandleAttributes, StatPath, SymlinkFile,
    WriteAt,
};
use minions_proto::message::{GuestPath, GuestTarget};

/// A request after its translation.
#[derive(Debug)]
pub(super) enum TranslatedRequest {
    /// The guest is not needed: this is the reply.
    Reply(Bytes),
    /// Request of the file session.
    Session {
        /// Operation.
        operation: SessionOperation,
        /// Bytes to write.
        data: Bytes,
        /// Form of the reply.
        form: ReplyForm,
    },
}

/// Refusal of a request that is not sent to the guest.
type Refused = (StatusCode, &'static str);

/// Translates a packet. Returns the id of the request with it.
pub(super) fn translate(packet: ClientPacket) -> (u32, TranslatedRequest) {
    let (id, request) = match packet {
        ClientPacket::Init => return (0, TranslatedRequest::Reply(reply::version())),
        ClientPacket::Request(id, request) => (id, request),
    };
    let translated = match request {
        Err(_) => Err((StatusCode::BadMessage, "the request is too short")),
        Ok(SftpRequest::Extended(ExtendedRequest::Limits)) => {
            return (id, TranslatedRequest::Reply(reply::limits(id)));
        }
        Ok(SftpRequest::Extended(request)) => extended(request),
        Ok(request) => standard(request),
    };
    let translated = translated
        .unwrap_or_else(|(code, reason)| TranslatedRequest::Reply(reply::status(id, code, reason)));
    (id, translated)
}

fn standard(request: SftpRequest) -> Result<TranslatedRequest, Refused> {
    use ReplyForm::{Attributes, Data, Entries, Handle, Path, Status};
    Ok(match request {
        SftpRequest::Open { path: name, flags, attributes } => {
            simple(SessionOperation::Open(open(&name, flags, attributes.mode)), Handle)
        }
        SftpRequest::Close { handle } => simple(SessionOperation::Close(number(&handle)?), Status),
        SftpRequest::Read { handle, offset, length } => {
            let SessionHandle { handle } = number(&handle)?;
            let length = length.min(MAX_TRANSFER);
            simple(SessionOperation::Read(ReadAt { handle, offset, length }), Data)
        }
        SftpRequest::Write { handle, offset, data } => {
            let SessionHandle { handle } = number(&handle)?;
            let operation = SessionOperation::Write(WriteAt { handle, offset });
            TranslatedRequest::Session { operation, data, form: Status }
        }
        SftpRequest::Stat { path: name, follow } => {
            simple(SessionOperation::Stat(StatPath { path: path(&name), follow }), Attributes)
        }
        SftpRequest::Fstat { handle } => {
            simple(SessionOperation::Fstat(number(&handle)?), Attributes)
        }
        SftpRequest::Setstat { path: name, change } => {
            let set = SetAttributes { path: path(&name), follow: true, change };
            simple(SessionOperation::Setstat(set), Status)
        }
        SftpRequest::Fsetstat { handle, change } => {
            let SessionHandle { handle } = number(&handle)?;
            simple(SessionOperation::Fsetstat(SetHandleAttributes { handle, change }), Status)
        }
        SftpRequest::Opendir { path: name } => {
            simple(SessionOperation::Opendir(OpenDirectory { path: path(&name) }), Handle)
        }
        SftpRequest::Readdir { handle } => {
            simple(SessionOperation::Readdir(number(&handle)?), Entries)
        }
        SftpRequest::Remove { path } => simple(SessionOperation::Remove(of(&path)), Status),
        SftpRequest::Mkdir { path: name, attributes } => {
            let make = MakeSessionDirectory { path: path(&name), mode: attributes.mode };
            simple(SessionOperation::Mkdir(make), Status)
        }
        SftpRequest::Rmdir { path } => simple(SessionOperation::Rmdir(of(&path)), Status),
        SftpRequest::Realpath { path } => simple(SessionOperation::Realpath(of(&path)), Path),
        SftpRequest::Rename { from, to } => rename(&from, &to, false),
        SftpRequest::Readlink { path } => simple(SessionOperation::Readlink(of(&path)), Path),
        SftpRequest::Symlink { target, link } => {
            let symlink = SymlinkFile { path: path(&link), to: GuestTarget::new(&target) };
            simple(SessionOperation::Symlink(symlink), Status)
        }
        SftpRequest::Extended(_) | SftpRequest::Unknown => return Err(UNSUPPORTED),
    })
}

fn extended(request: ExtendedRequest) -> Result<TranslatedRequest, Refused> {
    use ReplyForm::{Path, Space, Status};
    Ok(match request {
        ExtendedRequest::PosixRename { from, to } => rename(&from, &to, true),
        ExtendedRequest::Statvfs { path } => simple(SessionOperation::Statvfs(of(&path)), Space),
        ExtendedRequest::Fstatvfs { handle } => {
            simple(SessionOperation::Fstatvfs(number(&handle)?), Space)
        }
        ExtendedRequest::Hardlink { from, to } => {
            let link = LinkFile { path: path(&from), to: target(&to) };
            simple(SessionOperation::Link(link), Status)
        }
        ExtendedRequest::Fsync { handle } => {
            simple(SessionOperation::Fsync(number(&handle)?), Status)
        }
        ExtendedRequest::Lsetstat { path: name, change } => {
            let set = SetAttributes { path: path(&name), follow: false, change };
            simple(SessionOperation::Setstat(set), Status)
        }
        ExtendedRequest::ExpandPath { path } => {
            simple(SessionOperation::Realpath(of(&expanded(&path)?)), Path)
        }
        ExtendedRequest::Limits | ExtendedRequest::Unknown => return Err(UNSUPPORTED),
    })
}

const UNSUPPORTED: Refused = (StatusCode::Unsupported, "the server does not support this request");

fn simple(operation: SessionOperation, form: ReplyForm) -> TranslatedRequest {
    TranslatedRequest::Session { operation, data: Bytes::new(), form }
}

fn open(name: &[u8], flags: u32, mode: Option<u32>) -> OpenFile {
    let has = |flag: u32| flags & flag != 0;
    OpenFile {
        path: path(name),
        read: has(open_flag::READ),
        write: has(open_flag::WRITE),
        create: has(open_flag::CREATE),
        exclusive: has(open_flag::EXCLUSIVE),
        truncate: has(open_flag::TRUNCATE),
        append: has(open_flag::APPEND),
        mode,
    }
}

fn rename(from: &[u8], to: &[u8], replace: bool) -> TranslatedRequest {
    let rename = RenameEntry { path: path(from), to: target(to), replace };
    simple(SessionOperation::Rename(rename), ReplyForm::Status)
}

/// Returns a path of a request. An empty path is the start directory (section 6.2 of the draft).
fn path(name: &[u8]) -> GuestPath {
    GuestPath::new(if name.is_empty() { b"." } else { name })
}

fn target(name: &[u8]) -> GuestTarget {
    GuestTarget::new(if name.is_empty() { b"." } else { name })
}

fn of(name: &[u8]) -> PathRequest {
    PathRequest { path: path(name) }
}

/// Returns the handle of the file session that a client's handle contains.
fn number(handle: &[u8]) -> Result<SessionHandle, Refused> {
    let bytes = handle.try_into().map_err(|_| (StatusCode::NoSuchFile, "no such handle"))?;
    Ok(SessionHandle { handle: u32::from_be_bytes(bytes) })
}

/// Replaces a leading `~` by the start directory, which is the home directory of the user.
fn expanded(path: &Bytes) -> Result<Bytes, Refused> {
    match &path[..] {
        b"~" | b"~/" => Ok(Bytes::from_static(b".")),
        [b'~', b'/', ..] => Ok([b".", &path[1..]].concat().into()),
        [b'~', ..] => {
            let reason = "the home directories of other users are unknown; use an absolute path";
            Err((StatusCode::Failure, reason))
        }
        _ => Ok(path.clone()),
    }
}
