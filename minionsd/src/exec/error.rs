//! Failures of programs.

use crate::agent::{AgentRefusal, CallError, TransportError};
use crate::budget::NoRoom;
use minions_proto::exec_client::StreamError;

/// Failure to start a program, or to follow it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// A call to the agent failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The program was started, and its end is unknown.
    #[error("lost: {reason}")]
    Lost {
        /// Cause of the loss, for people.
        reason: String,
    },
    /// A message on the stream violates the protocol, or contradicts an earlier one.
    #[error("agent violated the protocol of the stream")]
    Stream(#[from] StreamError),
    /// The daemon has no memory for more of the program's output.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

impl ExecError {
    /// Creates the error for a program that is lost for this reason.
    pub(crate) fn lost(reason: impl Into<String>) -> Self {
        Self::Lost { reason: reason.into() }
    }

    /// Reports whether the guest may have run the program.
    pub(crate) fn may_have_executed(&self) -> bool {
        match self {
            Self::Call(error) => error.may_have_executed(),
            Self::Lost { .. } | Self::Stream(_) | Self::NoRoom(_) => true,
        }
    }
}

impl From<TransportError> for ExecError {
    fn from(error: TransportError) -> Self {
        Self::Call(error.into())
    }
}

impl From<AgentRefusal> for ExecError {
    fn from(refusal: AgentRefusal) -> Self {
        Self::Call(refusal.into())
    }
}
