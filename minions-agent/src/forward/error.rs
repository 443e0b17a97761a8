//! Failure to open a forward or a listener.

use crate::errno_name::errno_name;
use crate::exec::UserError;
use minions_proto::message::{ForwardAddress, ForwardTarget};
use minions_proto::{AgentError, ErrorCode, Invalid};
use rustix::io::Errno;
use std::io;

/// Reason why a forward or a listener was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the limit of {limit} {what} is reached; try again later")]
    Busy { limit: usize, what: &'static str },
    #[error(
        "this agent connects only to its loopback addresses and to Unix sockets; to permit {0}, name it in the option \
         --allow-forward of minions-agent in the guest"
    )]
    Forbidden(ForwardTarget),
    #[error(
        "this agent listens only on its loopback addresses and on Unix sockets; to permit {0}, name it with the prefix \
         listen: in the option --allow-forward of minions-agent in the guest"
    )]
    ForbiddenAddress(ForwardAddress),
    #[error(transparent)]
    Owner(#[from] UserError),
    #[error("cannot listen on {address}: {source} ({name})", name = name_of(source))]
    Listen { address: ForwardAddress, source: io::Error },
    #[error(
        "connection {connection} does not wait on this listener: it was taken or reset, or the listener is closed"
    )]
    NotWaiting { connection: u64 },
    #[error("cannot resolve {target}: {source}")]
    Resolve { target: ForwardTarget, source: io::Error },
    #[error("cannot connect to {target}: {source} ({name})", name = name_of(source))]
    Connect { target: ForwardTarget, source: io::Error },
}

fn name_of(error: &io::Error) -> String {
    Errno::from_io_error(error).map_or_else(|| "EIO".to_owned(), errno_name)
}

impl From<ForwardError> for AgentError {
    fn from(error: ForwardError) -> Self {
        let message = error.to_string();
        match error {
            ForwardError::Invalid(invalid) => invalid.into(),
            ForwardError::Busy { .. } => Self::new(ErrorCode::Busy, message),
            ForwardError::Forbidden(_) => Self {
                field: Some("target".to_owned()),
                ..Self::new(ErrorCode::Forbidden, message)
            },
            ForwardError::ForbiddenAddress(_) => Self {
                field: Some("address".to_owned()),
                ..Self::new(ErrorCode::Forbidden, message)
            },
            ForwardError::Owner(UserError::Unreadable { source, .. }) => {
                Self::new(ErrorCode::Internal, message).with_errno(source.raw_os_error())
            }
            ForwardError::Owner(UserError::NoUser(_) | UserError::NoGroup(_)) => Self {
                field: Some("owner".to_owned()),
                ..Self::new(ErrorCode::UserNotFound, message)
            },
            ForwardError::NotWaiting { .. } => Self::new(ErrorCode::ForwardFailed, message),
            ForwardError::Resolve { source, .. }
            | ForwardError::Connect { source, .. }
            | ForwardError::Listen { source, .. } => {
                let errno = source.raw_os_error();
                Self::new(ErrorCode::ForwardFailed, message).with_errno(errno)
            }
        }
    }
}
