//! Codes of the reply `STATUS` (section 7 of the draft).

/// Result of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusCode {
    /// The request succeeded.
    Ok,
    /// End of a file or of a directory.
    EndOfFile,
    /// The file does not exist.
    NoSuchFile,
    /// The user may not do this.
    PermissionDenied,
    /// Another failure, which the message states.
    Failure,
    /// The request is malformed.
    BadMessage,
    /// The server does not support the request.
    Unsupported,
}

impl StatusCode {
    /// Returns the number on the wire.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::EndOfFile => 1,
            Self::NoSuchFile => 2,
            Self::PermissionDenied => 3,
            Self::Failure => 4,
            Self::BadMessage => 5,
            Self::Unsupported => 8,
        }
    }

    /// Returns the code for the name of an error number, as OpenSSH's server does. `EINVAL` is a failure, because the
    /// agent refuses files that are not regular with it.
    pub(super) fn of_errno(errno: &str) -> Self {
        match errno {
            "ENOENT" | "ENOTDIR" | "EBADF" | "ELOOP" => Self::NoSuchFile,
            "EPERM" | "EACCES" => Self::PermissionDenied,
            "ENAMETOOLONG" => Self::BadMessage,
            "ENOSYS" | "EOPNOTSUPP" => Self::Unsupported,
            _ => Self::Failure,
        }
    }
}
