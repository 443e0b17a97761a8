//! Failure to open a forward.

use crate::errno_name::errno_name;
use minions_proto::message::ForwardTarget;
use minions_proto::{AgentError, ErrorCode, Invalid};
use rustix::io::Errno;
use std::io;

/// Reason why a forward was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the limit of {limit} forwards is reached; try again later")]
    Busy { limit: usize },
    #[error(
        "this agent connects only to its loopback addresses and to Unix sockets; to permit {0}, name it in the option \
         --allow-forward of minions-agent in the guest"
    )]
    Forbidden(ForwardTarget),
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
            ForwardError::Resolve { source, .. } | ForwardError::Connect { source, .. } => {
                let errno = source.raw_os_error();
                Self::new(ErrorCode::ForwardFailed, message).with_errno(errno)
            }
        }
    }
}
