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
use minions_proto::message::{GuestPath, GuestTarget, MAX_PATH_LEN};

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
            simple(SessionOperation::Open(open(&name, flags, attributes.mode)?), Handle)
        }
        SftpRequest::Close { handle } => simple(SessionOperation::Close(number(&handle)?), Status),
        SftpRequest::Read { handle, offset, length } => {
            let SessionHandle { handle } = number(&handle)?;
            if length == 0 {
                return Err((StatusCode::EndOfFile, "end of file"));
            }
            let most = length.min(MAX_TRANSFER);
            let read = ReadAt { handle, offset, length: most };
            simple(SessionOperation::Read(read), Data { most })
        }
        SftpRequest::Write { handle, offset, data } => {
            let SessionHandle { handle } = number(&handle)?;
            let operation = SessionOperation::Write(WriteAt { handle, offset });
            TranslatedRequest::Session { operation, data, form: Status }
        }
        SftpRequest::Stat { path: name, follow } => {
            simple(SessionOperation::Stat(StatPath { path: path(&name)?, follow }), Attributes)
        }
        SftpRequest::Fstat { handle } => {
            simple(SessionOperation::Fstat(number(&handle)?), Attributes)
        }
        SftpRequest::Setstat { path: name, change } => {
            let set = SetAttributes { path: path(&name)?, follow: true, change };
            simple(SessionOperation::Setstat(set), Status)
        }
        SftpRequest::Fsetstat { handle, change } => {
            let SessionHandle { handle } = number(&handle)?;
            simple(SessionOperation::Fsetstat(SetHandleAttributes { handle, change }), Status)
        }
        SftpRequest::Opendir { path: name } => {
            simple(SessionOperation::Opendir(OpenDirectory { path: path(&name)? }), Handle)
        }
        SftpRequest::Readdir { handle } => {
            simple(SessionOperation::Readdir(number(&handle)?), Entries)
        }
        SftpRequest::Remove { path } => simple(SessionOperation::Remove(of(&path)?), Status),
        SftpRequest::Mkdir { path: name, attributes } => {
            let make = MakeSessionDirectory { path: path(&name)?, mode: attributes.mode };
            simple(SessionOperation::Mkdir(make), Status)
        }
        SftpRequest::Rmdir { path } => simple(SessionOperation::Rmdir(of(&path)?), Status),
        SftpRequest::Realpath { path } => simple(SessionOperation::Realpath(of(&path)?), Path),
        SftpRequest::Rename { from, to } => rename(&from, &to, false)?,
        SftpRequest::Readlink { path } => simple(SessionOperation::Readlink(of(&path)?), Path),
        SftpRequest::Symlink { target, link } => {
            let symlink = SymlinkFile { path: path(&link)?, to: link_target(&target)? };
            simple(SessionOperation::Symlink(symlink), Status)
        }
        SftpRequest::Extended(_) | SftpRequest::Unknown => return Err(UNSUPPORTED),
    })
}

fn extended(request: ExtendedRequest) -> Result<TranslatedRequest, Refused> {
    use ReplyForm::{Path, Space, Status};
    Ok(match request {
        ExtendedRequest::PosixRename { from, to } => rename(&from, &to, true)?,
        ExtendedRequest::Statvfs { path } => simple(SessionOperation::Statvfs(of(&path)?), Space),
        ExtendedRequest::Fstatvfs { handle } => {
            simple(SessionOperation::Fstatvfs(number(&handle)?), Space)
        }
        ExtendedRequest::Hardlink { from, to } => {
            let link = LinkFile { path: path(&from)?, to: target(&to)? };
            simple(SessionOperation::Link(link), Status)
        }
        ExtendedRequest::Fsync { handle } => {
            simple(SessionOperation::Fsync(number(&handle)?), Status)
        }
        ExtendedRequest::Lsetstat { path: name, change } => {
            let set = SetAttributes { path: path(&name)?, follow: false, change };
            simple(SessionOperation::Setstat(set), Status)
        }
        ExtendedRequest::ExpandPath { path } => {
            simple(SessionOperation::Realpath(of(&expanded(&path)?)?), Path)
        }
        ExtendedRequest::Limits | ExtendedRequest::Unknown => return Err(UNSUPPORTED),
    })
}

const UNSUPPORTED: Refused = (StatusCode::Unsupported, "the server does not support this request");

fn simple(operation: SessionOperation, form: ReplyForm) -> TranslatedRequest {
    TranslatedRequest::Session { operation, data: Bytes::new(), form }
}

/// Returns the members of `open`. Combinations of flags that have no effect in OpenSSH's server are accepted.
fn open(name: &[u8], flags: u32, mode: Option<u32>) -> Result<OpenFile, Refused> {
    let has = |flag: u32| flags & flag != 0;
    let write = has(open_flag::WRITE);
    let create = has(open_flag::CREATE);
    Ok(OpenFile {
        path: path(name)?,
        // Without either flag, open(2) has the access mode 0, which is reading.
        read: has(open_flag::READ) || !write,
        write,
        create,
        exclusive: create && has(open_flag::EXCLUSIVE),
        truncate: write && has(open_flag::TRUNCATE),
        append: write && has(open_flag::APPEND),
        mode,
    })
}

fn rename(from: &[u8], to: &[u8], replace: bool) -> Result<TranslatedRequest, Refused> {
    let rename = RenameEntry { path: path(from)?, to: target(to)?, replace };
    Ok(simple(SessionOperation::Rename(rename), ReplyForm::Status))
}

/// Returns a path of a request. An empty path is the start directory (section 6.2 of the draft).
fn path(name: &[u8]) -> Result<GuestPath, Refused> {
    checked(name).map(|name| GuestPath::new(if name.is_empty() { b"." } else { name }))
}

fn target(name: &[u8]) -> Result<GuestTarget, Refused> {
    checked(name).map(|name| GuestTarget::new(if name.is_empty() { b"." } else { name }))
}

fn link_target(name: &[u8]) -> Result<GuestTarget, Refused> {
    checked(name).map(GuestTarget::new)
}

/// Refuses a path that is too long for the guest's kernel, before it makes the request longer than a head.
fn checked(name: &[u8]) -> Result<&[u8], Refused> {
    if name.len() > MAX_PATH_LEN {
        return Err((StatusCode::BadMessage, "the path must have at most 4095 bytes"));
    }
    Ok(name)
}

fn of(name: &[u8]) -> Result<PathRequest, Refused> {
    Ok(PathRequest { path: path(name)? })
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

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::file_session::{AttributeChange, SessionMessage, SessionRequest};

    #[track_caller]
    fn session(request: SftpRequest) -> SessionOperation {
        match translate(ClientPacket::Request(7, Ok(request))).1 {
            TranslatedRequest::Session { operation, .. } => operation,
            TranslatedRequest::Reply(reply) => panic!("{reply:?}"),
        }
    }

    /// Returns the code of the reply that is sent without the guest.
    #[track_caller]
    fn refused(request: SftpRequest) -> u8 {
        match translate(ClientPacket::Request(7, Ok(request))).1 {
            TranslatedRequest::Reply(reply) => reply[12],
            TranslatedRequest::Session { operation, .. } => panic!("{operation:?}"),
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_and_the_longest_one_is_not() {
        let name = |len: usize| Bytes::from(vec![1; len]);
        let (short, long) = (name(MAX_PATH_LEN), name(MAX_PATH_LEN + 1));
        let bad = u8::try_from(StatusCode::BadMessage.number()).unwrap();
        for request in [
            SftpRequest::Stat { path: long.clone(), follow: false },
            SftpRequest::Remove { path: long.clone() },
            SftpRequest::Rename { from: short.clone(), to: long.clone() },
            SftpRequest::Symlink { target: long.clone(), link: short.clone() },
            SftpRequest::Extended(ExtendedRequest::Statvfs { path: long.clone() }),
        ] {
            assert_eq!(refused(request.clone()), bad, "{request:?}");
        }
        let request = SftpRequest::Rename { from: short.clone(), to: short };
        let request = SessionRequest { id: u64::MAX, operation: session(request) };
        assert!(SessionMessage::new(&request, Bytes::new()).is_ok());
    }

    #[test]
    fn flags_without_an_effect_in_openssh_are_accepted() {
        use open_flag::{APPEND, CREATE, EXCLUSIVE, READ, TRUNCATE, WRITE};
        let opened = |flags: u32| {
            let attributes = AttributeChange::default();
            match session(SftpRequest::Open { path: Bytes::from_static(b"/a"), flags, attributes })
            {
                SessionOperation::Open(open) => open,
                other => panic!("{other:?}"),
            }
        };
        let path = GuestPath::new(b"/a");
        let read = OpenFile { path: path.clone(), read: true, ..OpenFile::default() };
        for flags in [0, READ, APPEND, READ | APPEND, READ | TRUNCATE, READ | EXCLUSIVE] {
            assert_eq!(opened(flags), read, "{flags}");
        }
        let write = OpenFile { path, write: true, ..OpenFile::default() };
        let all = OpenFile { create: true, exclusive: true, truncate: true, append: true, ..write };
        assert_eq!(opened(WRITE | CREATE | EXCLUSIVE | TRUNCATE | APPEND), all);
    }

    #[test]
    fn a_read_of_no_bytes_is_the_end_of_the_file() {
        let handle = Bytes::from_static(&[0; 4]);
        let end = u8::try_from(StatusCode::EndOfFile.number()).unwrap();
        let request = SftpRequest::Read { handle, offset: 0, length: 0 };
        assert_eq!(refused(request), end);
    }
}
