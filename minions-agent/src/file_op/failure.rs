//! Failures of operations on files.

use crate::errno_name::errno_name;
use crate::files::ResolveError;
use minions_proto::Invalid;
use minions_proto::file_stream::FileFailure;
use minions_proto::message::GuestPath;
use rustix::io::Errno;
use std::io;

/// Failure of one step of an operation.
#[derive(Debug)]
pub(super) struct OperationError {
    errno: Errno,
    path: Vec<u8>,
    step: &'static str,
    reason: String,
}

impl OperationError {
    /// Creates a failure that the kernel reported.
    pub(super) fn new(error: &io::Error, path: &[u8], step: &'static str) -> Self {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        let reason = match error.raw_os_error() {
            Some(_) => io::Error::from(errno).to_string(),
            None => error.to_string(),
        };
        Self { errno, path: path.to_vec(), step, reason }
    }

    /// Creates a failure that this process itself detected, with the closest error number of the kernel.
    pub(super) fn refusal(errno: Errno, path: &[u8], step: &'static str, reason: &str) -> Self {
        Self { errno, path: path.to_vec(), step, reason: reason.to_owned() }
    }

    /// Returns the line that reports the failure.
    pub(super) fn line(&self, warning: bool) -> FileFailure {
        let Self { errno, path, step, reason } = self;
        let GuestPath { path: text, path_base64 } = GuestPath::new(path);
        let message = format!("{step} {text:?}: {reason}");
        let (errno, step) = (errno_name(*errno), (*step).to_owned());
        FileFailure { errno, path: text, path_base64, step, message, warning }
    }
}

impl OperationError {
    /// Reports whether the file does not exist (any more).
    pub(super) fn is_missing(&self) -> bool {
        self.errno == Errno::NOENT
    }

    /// Reports whether a file is not the directory that it was expected to be.
    pub(super) fn is_other_type(&self) -> bool {
        matches!(self.errno, Errno::NOTDIR | Errno::LOOP)
    }

    /// Reports whether an operation on many files cannot continue after this failure of one of them.
    pub(super) fn is_fatal(&self) -> bool {
        let disk =
            [Errno::NOSPC, Errno::ROFS, Errno::DQUOT, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
        matches!(self.step, "send" | "input" | "tar" | "member") || disk.contains(&self.errno)
    }
}

impl From<Invalid> for OperationError {
    fn from(invalid: Invalid) -> Self {
        Self::refusal(Errno::INVAL, b"", "decode", &invalid.to_string())
    }
}

/// Returns a conversion for `map_err` that adds the path and the step.
pub(super) fn failed<E: Into<io::Error>>(
    path: &[u8],
    step: &'static str,
) -> impl Fn(E) -> OperationError {
    move |error| OperationError::new(&error.into(), path, step)
}

/// Returns a conversion for `map_err` of failures to resolve `path`.
pub(super) fn unresolved(path: &[u8]) -> impl Fn(ResolveError) -> OperationError {
    move |error| match error {
        ResolveError::Io(error) => OperationError::new(&error, path, "resolve"),
        refused @ (ResolveError::ForeignLink { .. } | ResolveError::Upwards { .. }) => {
            OperationError::refusal(Errno::PERM, path, "resolve", &refused.to_string())
        }
    }
}
