//! Operation `session`: many requests on files, one after the other.
//!
//! ```text
//!  standard input ─▶ SessionDecoder ─▶ FileSession::answer ─┬─▶ open_file, open_directory ─▶ handle_table
//!                                                           ├─▶ attribute_change, described
//!  standard output ◀── frames ◀── SessionAnswer, data ◀─────┴─▶ entry_change
//! ```
//!
//! Requests are answered in the order of their arrival. The process holds one request and one answer at a time, besides
//! the open handles: a host that does not read the answers stops the process, and then its own requests wait in the
//! socket.

mod attribute_change;
mod described;
mod entry_change;
mod handle_table;
mod open_directory;
mod open_file;

use super::failure::{FileError, failed, failure_line};
use super::file_input::FileInput;
use super::operation_output::OperationOutput;
use bytes::{Bytes, BytesMut};
use handle_table::HandleTable;
use minions_proto::file_session::{
    SessionAnswer, SessionDecoder, SessionMessage, SessionOperation, SessionPath, SessionRequest,
    SessionResult,
};
use minions_proto::message::{GuestPath, GuestTarget};
use minions_tree::BUFFER_LEN;
use rustix::io::Errno;
use std::io::Read;

/// Permission bits of a mode.
const MODE_BITS: u32 = 0o7777;

/// Largest number of bytes of the reason why a request is malformed.
const MAX_REASON_LEN: usize = 256;

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// Serves `session` until the end of the input.
pub(super) fn serve(output: &mut OperationOutput) -> Result<(), FileError> {
    enter_home();
    let mut session = FileSession::default();
    let mut input = FileInput::standard();
    let mut decoder = SessionDecoder::default();
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        while let Some(message) = decoder.next_message().map_err(|error| malformed(&error))? {
            session.answer(message, output)?;
        }
        // The host may wait for the answers before it sends the next request.
        output.finish()?;
        match input.read(&mut buffer).map_err(failed(b"", "input"))? {
            0 if decoder.is_empty() => return Ok(()),
            0 => return Err(malformed(&"the input ended within a frame")),
            len => decoder.extend(&buffer[..len]),
        }
    }
}

/// Makes relative paths start in the home directory of the user. Without one, they start in `/`.
fn enter_home() {
    if let Some(home) = std::env::var_os("HOME") {
        // An error means that the directory does not exist, or that it is closed to the user.
        let _ = std::env::set_current_dir(home);
    }
}

fn malformed(reason: &impl ToString) -> FileError {
    FileError::refusal(Errno::BADMSG, b"", "frame", &shortened(reason))
}

/// Returns at most [`MAX_REASON_LEN`] bytes of a reason. Errors of JSON quote the value, which can be as long as a head.
fn shortened(reason: &impl ToString) -> String {
    let mut reason = reason.to_string();
    reason.truncate(reason.floor_char_boundary(MAX_REASON_LEN));
    reason
}

/// Reports whether an operation may wait for a file system that does not answer, such as one over a network. Earlier
/// answers are sent before it starts.
fn may_take_long(operation: &SessionOperation) -> bool {
    match operation {
        SessionOperation::Open(_)
        | SessionOperation::Opendir(_)
        | SessionOperation::Stat(_)
        | SessionOperation::Setstat(_)
        | SessionOperation::Mkdir(_)
        | SessionOperation::Rmdir(_)
        | SessionOperation::Remove(_)
        | SessionOperation::Rename(_)
        | SessionOperation::Symlink(_)
        | SessionOperation::Link(_)
        | SessionOperation::Readlink(_)
        | SessionOperation::Realpath(_)
        | SessionOperation::Statvfs(_)
        | SessionOperation::Fsync(_)
        | SessionOperation::Close(_) => true,
        // Sending each answer alone would make reading and writing slower.
        SessionOperation::Read(_)
        | SessionOperation::Write(_)
        | SessionOperation::Fstat(_)
        | SessionOperation::Fsetstat(_)
        | SessionOperation::Readdir(_)
        | SessionOperation::Fstatvfs(_)
        | SessionOperation::Unknown => false,
    }
}

/// Success of a request: the result, and the data of its frame.
type Answered = Result<(SessionResult, Bytes), FileError>;

/// State of the session.
#[derive(Debug, Default)]
struct FileSession {
    handles: HandleTable,
}

impl FileSession {
    /// Performs a request, and writes its answer.
    ///
    /// # Errors
    ///
    /// The session cannot continue: the request has no number, or the answer cannot be sent.
    fn answer(
        &mut self,
        message: SessionMessage,
        output: &mut OperationOutput,
    ) -> Result<(), FileError> {
        let decoded = SessionRequest::decode(&message.head);
        let (id, operation) = decoded.map_err(|error| malformed(&error))?;
        let answered = match operation {
            Ok(operation) => {
                if may_take_long(&operation) {
                    output.finish()?;
                }
                self.perform(operation, &message.data)
            }
            Err(error) => Err(FileError::refusal(Errno::INVAL, b"", "decode", &shortened(&error))),
        };
        let (result, data) = answered.unwrap_or_else(|error| {
            (SessionResult::Failed(failure_line(&error, false)), Bytes::new())
        });
        let answer = SessionMessage::new(&SessionAnswer { id, result }, data);
        let mut frame = BytesMut::new();
        answer.map_err(|error| malformed(&error))?.encode(&mut frame);
        output.data(&frame)
    }

    fn perform(&mut self, operation: SessionOperation, data: &Bytes) -> Answered {
        if !data.is_empty() && !matches!(operation, SessionOperation::Write(_)) {
            let reason = "only `write` has data";
            return Err(FileError::refusal(Errno::INVAL, b"", "decode", reason));
        }
        match operation {
            SessionOperation::Open(op) => self.opened(open_file::open(&op)?),
            SessionOperation::Opendir(op) => self.opened(open_directory::open(&op)?),
            SessionOperation::Close(op) => self.handles.close(op.handle).map(|()| done()),
            SessionOperation::Read(op) => {
                open_file::read(&self.handles, op).map(|data| (SessionResult::Data, data))
            }
            SessionOperation::Write(op) => {
                open_file::write(&self.handles, op, data).map(|()| done())
            }
            SessionOperation::Readdir(op) => {
                let entries = open_directory::read(&mut self.handles, op.handle)?;
                Ok(without_data(SessionResult::Entries { entries }))
            }
            SessionOperation::Stat(op) => described::of_path(&op).map(metadata),
            SessionOperation::Fstat(op) => {
                described::of_handle(&self.handles, op.handle).map(metadata)
            }
            SessionOperation::Statvfs(op) => described::space_of_path(&op).map(space),
            SessionOperation::Fstatvfs(op) => {
                described::space_of_handle(&self.handles, op.handle).map(space)
            }
            SessionOperation::Setstat(op) => attribute_change::of_path(&op).map(|()| done()),
            SessionOperation::Fsetstat(op) => {
                attribute_change::of_handle(&self.handles, op).map(|()| done())
            }
            SessionOperation::Fsync(op) => {
                open_file::sync(&self.handles, op.handle).map(|()| done())
            }
            SessionOperation::Mkdir(op) => entry_change::mkdir(&op).map(|()| done()),
            SessionOperation::Rmdir(op) => entry_change::rmdir(&op).map(|()| done()),
            SessionOperation::Remove(op) => entry_change::remove(&op).map(|()| done()),
            SessionOperation::Rename(op) => entry_change::rename(&op).map(|()| done()),
            SessionOperation::Symlink(op) => entry_change::symlink(&op).map(|()| done()),
            SessionOperation::Link(op) => entry_change::link(&op).map(|()| done()),
            SessionOperation::Readlink(op) => described::target(&op).map(|path| path_of(&path)),
            SessionOperation::Realpath(op) => described::resolved(&op).map(|path| path_of(&path)),
            SessionOperation::Unknown => {
                let reason = "this agent version does not support the operation";
                Err(FileError::refusal(Errno::NOSYS, b"", "decode", reason))
            }
        }
    }

    fn opened(&mut self, file: handle_table::OpenHandle) -> Answered {
        let handle = self.handles.add(file)?;
        Ok(without_data(SessionResult::Handle { handle }))
    }
}

fn without_data(result: SessionResult) -> (SessionResult, Bytes) {
    (result, Bytes::new())
}

fn done() -> (SessionResult, Bytes) {
    without_data(SessionResult::Done)
}

fn metadata(metadata: minions_proto::file_session::SessionMetadata) -> (SessionResult, Bytes) {
    without_data(SessionResult::Metadata(metadata))
}

fn space(space: minions_proto::file_session::FilesystemSpace) -> (SessionResult, Bytes) {
    without_data(SessionResult::Space(space))
}

fn path_of(path: &[u8]) -> (SessionResult, Bytes) {
    without_data(SessionResult::Path(SessionPath { path: GuestPath::new(path) }))
}

/// Returns the bytes of the path of a request.
fn path(path: &GuestPath) -> Result<Vec<u8>, FileError> {
    Ok(path.bytes_of_any()?)
}

/// Returns the bytes of the second path of a request.
fn target(path: &GuestTarget) -> Result<Vec<u8>, FileError> {
    Ok(path.bytes_of_any()?)
}
