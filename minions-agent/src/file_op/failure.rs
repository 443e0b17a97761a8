//! Failure lines of operations on files.

use crate::errno_name::errno_name;
use minions_proto::file_stream::FileFailure;
use minions_proto::message::GuestPath;
pub(super) use minions_tree::FileError;
pub(super) use minions_tree::error::{failed, unresolved};

/// Returns the line that reports the failure.
pub(super) fn failure_line(error: &FileError, warning: bool) -> FileFailure {
    let GuestPath { path, path_base64 } = GuestPath::new(error.path());
    let (errno, step) = (errno_name(error.errno()), error.step().to_owned());
    FileFailure { errno, path, path_base64, step, message: error.to_string(), warning }
}
