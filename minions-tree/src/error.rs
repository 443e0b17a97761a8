//! Failure of one step of an operation on files.

use crate::files::ResolveError;
use minions_proto::Invalid;
use minions_proto::message::GuestPath;
use rustix::io::Errno;
use std::fmt;
use std::io;

/// Failure of one step, with the path and the kernel's error number.
#[derive(Debug)]
pub struct FileError {
    errno: Errno,
    path: Vec<u8>,
    step: &'static str,
    reason: String,
}

impl FileError {
    /// Creates a failure that the kernel reported.
    #[must_use]
    pub fn new(error: &io::Error, path: &[u8], step: &'static str) -> Self {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        let reason = match error.raw_os_error() {
            Some(_) => io::Error::from(errno).to_string(),
            None => error.to_string(),
        };
        Self { errno, path: path.to_vec(), step, reason }
    }

    /// Creates a failure that this process itself detected, with the closest error number of the kernel.
    #[must_use]
    pub fn refusal(errno: Errno, path: &[u8], step: &'static str, reason: &str) -> Self {
        Self { errno, path: path.to_vec(), step, reason: reason.to_owned() }
    }

    /// Returns the failure of a write to the receiver of a stream. Usually, the receiver has closed the stream.
    #[must_use]
    pub fn not_sent(error: &io::Error) -> Self {
        Self::new(error, b"", "send")
    }

    /// Returns the kernel's error number, also if this process itself refuses.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// Returns the path that the failure is about.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns the name of the step that failed: `open`, `read`, `tar`.
    #[must_use]
    pub fn step(&self) -> &'static str {
        self.step
    }

    /// Reports whether the file does not exist (any more).
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.errno == Errno::NOENT
    }

    /// Reports whether a file is not the directory that it was expected to be.
    #[must_use]
    pub fn is_other_type(&self) -> bool {
        matches!(self.errno, Errno::NOTDIR | Errno::LOOP)
    }

    /// Reports whether an operation on many files cannot continue after this failure of one of them.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        let disk =
            [Errno::NOSPC, Errno::ROFS, Errno::DQUOT, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
        matches!(self.step, "send" | "input" | "tar" | "member") || disk.contains(&self.errno)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, step, reason, .. } = self;
        let GuestPath { path, .. } = GuestPath::new(path);
        write!(f, "{step} {path:?}: {reason}")
    }
}

impl std::error::Error for FileError {}

impl From<Invalid> for FileError {
    fn from(invalid: Invalid) -> Self {
        Self::refusal(Errno::INVAL, b"", "decode", &invalid.to_string())
    }
}

/// Returns a conversion for `map_err` that adds the path and the step.
pub fn failed<E: Into<io::Error>>(path: &[u8], step: &'static str) -> impl Fn(E) -> FileError {
    move |error| FileError::new(&error.into(), path, step)
}

/// Returns a conversion for `map_err` of failures to resolve `path`.
pub fn unresolved(path: &[u8]) -> impl Fn(ResolveError) -> FileError {
    move |error| match error {
        ResolveError::Io(error) => FileError::new(&error, path, "resolve"),
        refused @ (ResolveError::ForeignLink { .. } | ResolveError::Upwards { .. }) => {
            FileError::refusal(Errno::PERM, path, "resolve", &refused.to_string())
        }
    }
}
