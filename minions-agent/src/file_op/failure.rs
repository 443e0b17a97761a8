//! Failures of operations on files.

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

    /// Creates a failure that this process found itself, with the kernel's closest error number.
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
    /// Reports whether the file does not exist, or no longer.
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

/// Returns a conversion for `map_err` that adds path and step.
pub(super) fn failed<E: Into<io::Error>>(
    path: &[u8],
    step: &'static str,
) -> impl Fn(E) -> OperationError {
    move |error| OperationError::new(&error.into(), path, step)
}

/// Returns a conversion for `map_err` for the resolution of `path`.
pub(super) fn unresolved(path: &[u8]) -> impl Fn(ResolveError) -> OperationError {
    move |error| match error {
        ResolveError::Io(error) => OperationError::new(&error, path, "resolve"),
        refused @ (ResolveError::ForeignLink { .. } | ResolveError::Upwards { .. }) => {
            OperationError::refusal(Errno::PERM, path, "resolve", &refused.to_string())
        }
    }
}

/// Error numbers that file operations are expected to meet, with their names.
const NAMES: [(Errno, &str); 46] = [
    (Errno::ACCESS, "EACCES"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::BADF, "EBADF"),
    (Errno::BADMSG, "EBADMSG"),
    (Errno::BUSY, "EBUSY"),
    (Errno::CANCELED, "ECANCELED"),
    (Errno::CONNABORTED, "ECONNABORTED"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::CONNRESET, "ECONNRESET"),
    (Errno::DQUOT, "EDQUOT"),
    (Errno::EXIST, "EEXIST"),
    (Errno::FBIG, "EFBIG"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::INTR, "EINTR"),
    (Errno::INVAL, "EINVAL"),
    (Errno::IO, "EIO"),
    (Errno::ISDIR, "EISDIR"),
    (Errno::LOOP, "ELOOP"),
    (Errno::MFILE, "EMFILE"),
    (Errno::MLINK, "EMLINK"),
    (Errno::NAMETOOLONG, "ENAMETOOLONG"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::NFILE, "ENFILE"),
    (Errno::NODATA, "ENODATA"),
    (Errno::NODEV, "ENODEV"),
    (Errno::NOENT, "ENOENT"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::NOTCONN, "ENOTCONN"),
    (Errno::NOTDIR, "ENOTDIR"),
    (Errno::NOTEMPTY, "ENOTEMPTY"),
    (Errno::NXIO, "ENXIO"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::OVERFLOW, "EOVERFLOW"),
    (Errno::PERM, "EPERM"),
    (Errno::PIPE, "EPIPE"),
    (Errno::PROTOTYPE, "EPROTOTYPE"),
    (Errno::RANGE, "ERANGE"),
    (Errno::ROFS, "EROFS"),
    (Errno::STALE, "ESTALE"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::TOOBIG, "E2BIG"),
    (Errno::TXTBSY, "ETXTBSY"),
    (Errno::USERS, "EUSERS"),
    (Errno::XDEV, "EXDEV"),
];

/// Returns the kernel's name of an error number, or `E` and the number.
pub(crate) fn errno_name(errno: Errno) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == errno);
    known.map_or_else(|| format!("E{}", errno.raw_os_error()), |(_, name)| (*name).to_owned())
}
