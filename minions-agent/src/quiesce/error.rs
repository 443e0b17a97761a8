//! Failures of `quiesce` and `thaw`.

use super::frozen_set::{FreezeError, MAX_FROZEN};
use crate::error_chain;
use crate::hooks::HookError;
use minions_proto::{AgentError, ErrorCode, Invalid};
use std::io;
use std::time::Duration;

/// Refusal or failure of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuiesceError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(
        "the guest is already quiesced, for at most {} ms more: thaw it first", left.as_millis()
    )]
    AlreadyQuiesced { left: Duration },
    #[error("another quiesce of this guest begins or ends at the moment; try again later")]
    Changing,
    #[error("the guest is not quiesced{0}")]
    NotQuiesced(String),
    #[error("failed to quiesce the guest at the step `{}`", .0.name())]
    Failed(#[source] QuiesceFailure),
}

/// Failure of one step. All that was done before was undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuiesceFailure {
    #[error("the hook {path} {detail}")]
    Hook { path: String, detail: String },
    #[error("the hooks cannot be run")]
    Hooks(#[source] HookError),
    #[error("the hooks did not end within {} s together", .0.as_secs())]
    SlowHooks(Duration),
    #[error("a thaw was requested before the freeze")]
    Cancelled,
    #[error("the lease ended before the file systems were synced")]
    SlowSync,
    #[error("cannot read the mounted file systems")]
    Mounts(#[source] io::Error),
    #[error(
        "none of the guest's file systems can be frozen: its root file system is {root_type:?}, and none that is \
         mounted writable is on a block device"
    )]
    NothingToFreeze { root_type: String },
    #[error("none of the guest's file systems can be frozen; the kernel refuses {0}")]
    NoneFrozen(String),
    #[error(
        "the guest has {0} file systems on block devices: at most {MAX_FROZEN} can be frozen together"
    )]
    TooMany(usize),
    #[error("cannot start the process that thaws the file systems if the agent cannot")]
    Keeper(#[source] io::Error),
    #[error("cannot set a timer for the end of the lease")]
    Timer(#[source] io::Error),
    #[error(transparent)]
    Freeze(FreezeError),
    #[error("the lease ended before the file systems were frozen")]
    SlowFreeze,
    #[error("the agent is shutting down")]
    Interrupted,
}

impl QuiesceFailure {
    /// Returns the name of the step on the wire.
    fn name(&self) -> &'static str {
        match self {
            Self::Hook { .. } | Self::Hooks(_) | Self::SlowHooks(_) | Self::Cancelled => "hooks",
            Self::SlowSync => "sync",
            Self::Mounts(_)
            | Self::NothingToFreeze { .. }
            | Self::NoneFrozen(_)
            | Self::TooMany(_)
            | Self::Freeze(_)
            | Self::SlowFreeze => "freeze",
            Self::Keeper(_) | Self::Timer(_) | Self::Interrupted => "keeper",
        }
    }

    fn errno(&self) -> Option<i32> {
        match self {
            Self::Mounts(source) | Self::Keeper(source) | Self::Timer(source) => {
                source.raw_os_error()
            }
            Self::Freeze(error) => error.errno(),
            Self::Hook { .. }
            | Self::Hooks(_)
            | Self::SlowHooks(_)
            | Self::Cancelled
            | Self::SlowSync
            | Self::NothingToFreeze { .. }
            | Self::NoneFrozen(_)
            | Self::TooMany(_)
            | Self::SlowFreeze
            | Self::Interrupted => None,
        }
    }
}

impl From<QuiesceFailure> for QuiesceError {
    fn from(failure: QuiesceFailure) -> Self {
        Self::Failed(failure)
    }
}

impl From<QuiesceError> for AgentError {
    fn from(error: QuiesceError) -> Self {
        let message = error_chain(&error);
        match error {
            QuiesceError::Invalid(invalid) => invalid.into(),
            QuiesceError::AlreadyQuiesced { .. } | QuiesceError::Changing => {
                Self::new(ErrorCode::Quiesced, message)
            }
            QuiesceError::NotQuiesced(_) => Self::new(ErrorCode::NotQuiesced, message),
            QuiesceError::Failed(failure) => {
                let mut failed = Self::new(ErrorCode::QuiesceFailed, message);
                failed.step = Some(failure.name().to_owned());
                failed.with_errno(failure.errno())
            }
        }
    }
}
