//! Failures of requests about programs.

use super::object::MAX_SIGNALS;
use super::user::UserError;
use super::{MAX_RUNNING, REMOVAL};
use minions_proto::Invalid;
use minions_proto::frame::EncodeError;
use minions_proto::message::ExecId;
use rustix::io::Errno;
use std::io;
use std::sync::Arc;

/// Failure of an exec request. Clones go to all requests that wait for the same start.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ExecError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the limit of {MAX_RUNNING} running programs is reached; try again later")]
    Busy,
    #[error("{command:?} not found")]
    NotFound { command: String },
    #[error("{path:?} cannot be executed")]
    NotExecutable { path: String, source: Errno },
    #[error("{path:?} exists, but {missing} does not")]
    MissingInterpreter { path: String, missing: String, source: Errno },
    #[error("{path:?} cannot be started")]
    Start { path: String, source: Errno },
    #[error(transparent)]
    User(#[from] UserError),
    #[error("the agent cannot switch to user {user:?}")]
    SwitchUser { user: String, source: Errno },
    #[error("cannot enter the working directory {path:?}")]
    Cwd { path: String, source: Errno },
    #[error("cannot set the resource limits")]
    Limits(#[source] Errno),
    #[error("arguments and environment are longer than the kernel allows")]
    TooLong(#[source] Errno),
    #[error("a path, an argument or a variable contains a NUL byte")]
    Nul,
    #[error("cannot create the program's standard streams")]
    Streams(#[source] Errno),
    #[error("cannot watch the program's process")]
    Wait(#[source] Arc<io::Error>),
    #[error("no exec has the id {0}: it never existed, or it ended and was dropped")]
    Gone(ExecId),
    #[error("the exec {id} belongs to the guest that was saved, before it was restored or cloned{}", listed_as(.listed.as_ref()))]
    Earlier { id: ExecId, listed: Option<ExecId> },
    #[error("the exec {0} was told to end but has not ended within {secs} s: its process waits in the kernel or is \
             frozen; the exec keeps its id and counts as one of the {MAX_RUNNING} running programs",
            secs = REMOVAL.as_secs())]
    NotEnded(ExecId),
    #[error("an exec with different parameters has this id")]
    Conflict,
    #[error(transparent)]
    Refused(#[from] ExecRefusal),
    #[error("the program's outcome is unknown: {0}")]
    Lost(String),
    #[error("the agent is shutting down")]
    Interrupted,
    #[error("the result cannot be encoded")]
    Encode(#[source] Arc<EncodeError>),
}

impl ExecError {
    pub(super) fn wait(error: io::Error) -> Self {
        Self::Wait(Arc::new(error))
    }

    pub(super) fn encode(error: EncodeError) -> Self {
        Self::Encode(Arc::new(error))
    }

    /// Returns the kernel's error number, if the kernel caused the failure.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::NotExecutable { source, .. }
            | Self::MissingInterpreter { source, .. }
            | Self::Start { source, .. }
            | Self::SwitchUser { source, .. }
            | Self::Cwd { source, .. }
            | Self::Limits(source)
            | Self::TooLong(source)
            | Self::Streams(source) => Some(source.raw_os_error()),
            Self::Wait(source) => source.raw_os_error(),
            Self::NotFound { .. } => Some(Errno::NOENT.raw_os_error()),
            Self::Invalid(_)
            | Self::Busy
            | Self::Nul
            | Self::User(_)
            | Self::Gone(_)
            | Self::Earlier { .. }
            | Self::NotEnded(_)
            | Self::Conflict
            | Self::Refused(_)
            | Self::Lost(_)
            | Self::Interrupted
            | Self::Encode(_) => None,
        }
    }
}

/// Completes the sentence about an exec of an earlier generation.
fn listed_as(listed: Option<&ExecId>) -> String {
    match listed {
        Some(listed) => format!("; its program is listed as {listed}"),
        None => "; it had ended".to_owned(),
    }
}

/// Reason why an attach, input, or an order is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ExecRefusal {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the exec has ended")]
    Ended,
    #[error("{MAX_SIGNALS} signals are already waiting for delivery")]
    TooManySignals,
    #[error("more input than the window allows")]
    Window,
    #[error("input after the end of the input")]
    InputClosed,
}
