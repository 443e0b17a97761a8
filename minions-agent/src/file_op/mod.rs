//! Operations on files, each in a process of its own.
//!
//! ```text
//!  file_start ─▶ ops::file ─▶ exec: /proc/self/exe file-op '{"op":"read",…}', as the user of the request
//!                                    │ standard input   socket: its half-close is the end of the input
//!                                    │ standard output  header line, then data
//!                                    ▼ standard error   failure lines
//!                               file_op::run ─▶ one module for each operation
//! ```
//!
//! The process has exactly the rights of a program of this user. When it is killed, the kernel releases everything
//! that it holds: files without a name (`O_TMPFILE`), descriptors, watches.
//!
//! The program is `/proc/self/exe`, which remains the agent's own file even if another file is installed under its
//! name. The agent does not start without `/proc`; if `/proc` is unmounted later, operations fail with
//! `command_not_found`. The user of an operation must be permitted to execute the file (mode 0755).

mod directory_change;
mod directory_list;
mod failure;
mod file_input;
mod file_read;
mod file_write;
mod metadata;
mod operation_output;
mod session;
mod tree;
mod tree_watch;
mod watch_table;

use crate::ops::file::ARGUMENT;
use failure::FileError;
use minions_proto::message::FileOperation;
use operation_output::OperationOutput;
use rustix::io::Errno;
use std::ffi::OsString;
use std::process::ExitCode;

/// Exit status of a failure, and of a success with warnings.
const FAILED: u8 = 1;

/// Returns the operation, as JSON, if the command line requests one. `line` does not contain the program's name.
#[must_use]
pub fn asked(line: impl IntoIterator<Item = OsString>) -> Option<OsString> {
    let mut line = line.into_iter();
    line.next().filter(|first| first == ARGUMENT)?;
    Some(line.next().unwrap_or_default())
}

/// Runs the operation, given as JSON, on the standard streams of this process.
#[must_use]
pub fn run(operation: &OsString) -> ExitCode {
    let mut output = OperationOutput::standard();
    let decoded = minions_proto::json::from_slice::<FileOperation>(operation.as_encoded_bytes());
    let done = match decoded {
        Ok(operation) => perform(&operation, &mut output).and_then(|()| output.finish()),
        Err(error) => {
            let reason = format!("the operation is malformed: {error}");
            Err(FileError::refusal(Errno::INVAL, b"", "decode", &reason))
        }
    };
    match done {
        Ok(()) if !output.has_warned() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(FAILED),
        Err(error) => {
            output.fail(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn perform(operation: &FileOperation, output: &mut OperationOutput) -> Result<(), FileError> {
    match operation {
        FileOperation::Stat(op) => metadata::stat(op, output),
        FileOperation::List(op) => directory_list::list(op, output),
        FileOperation::Read(op) => file_read::read(op, output),
        FileOperation::Write(op) => file_write::write(op, output),
        FileOperation::Mkdir(op) => directory_change::mkdir(op, output),
        FileOperation::Rename(op) => directory_change::rename(op, output),
        FileOperation::Remove(op) => directory_change::remove(op, output),
        FileOperation::TarOut(op) => tree::pack(op, output),
        FileOperation::TarIn(op) => tree::unpack(op, output),
        FileOperation::Watch(op) => tree_watch::watch(op, output),
        FileOperation::Session(_) => session::serve(output),
    }
}
