//! Failures of `quiesce` and `thaw`.

use super::frozen_set::{FreezeError, MAX_FROZEN};
use super::requests::StopReason;
use crate::error_chain;
use crate::hooks::HookError;
use crate::identity::IdentityError;
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
    #[error("another quiesce of this guest begins or ends at the moment{}; try again later", waiting(.waits_for))]
    Changing {
        /// Steps that still wait in the kernel.
        waits_for: String,
    },
    #[error("the guest is not quiesced{0}")]
    NotQuiesced(String),
    #[error("failed to quiesce the guest at the step `{}`", .0.step().name())]
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
    #[error("no random id is available")]
    Id(#[source] IdentityError),
    #[error("a thaw was requested before the guest was quiesced")]
    Cancelled(QuiesceStep),
    #[error("the requester has left")]
    Left(QuiesceStep),
    #[error("cannot write the file by which the next agent thaws the guest if this one is killed")]
    Marker(#[source] io::Error),
    #[error("{mount} was not opened in time: its device or server may not respond")]
    SlowOpen { step: QuiesceStep, mount: String },
    #[error("the lease ended before {0} was synced")]
    SlowSync(String),
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
    #[error("the lease ended before the keeper was ready")]
    SlowKeeper,
    #[error(
        "the lease ended during the freeze of {mount}{}",
        if *.is_undone { "" } else {
            ", which still waits for a write in progress: until that ends, programs that write to it wait, and the guest \
             cannot be quiesced again"
        }
    )]
    SlowFreeze { mount: String, is_undone: bool },
    #[error("the agent is shutting down")]
    Interrupted,
}

/// Step of a quiesce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuiesceStep {
    Hooks,
    Sync,
    Keeper,
    Freeze,
}

impl QuiesceStep {
    /// Returns the name on the wire.
    fn name(self) -> &'static str {
        match self {
            Self::Hooks => "hooks",
            Self::Sync => "sync",
            Self::Keeper => "keeper",
            Self::Freeze => "freeze",
        }
    }
}

fn waiting(steps: &str) -> String {
    if steps.is_empty() { String::new() } else { format!(" ({steps} has not ended yet)") }
}

impl QuiesceFailure {
    /// Returns the failure of a step that was stopped before the end of the lease.
    pub(super) fn stopped(step: QuiesceStep, reason: StopReason) -> Self {
        match reason {
            StopReason::ThawRequested => Self::Cancelled(step),
            StopReason::RequesterLeft => Self::Left(step),
            StopReason::LeaseOver => Self::Interrupted,
        }
    }

    fn step(&self) -> QuiesceStep {
        match self {
            Self::Hook { .. } | Self::Hooks(_) | Self::SlowHooks(_) | Self::Id(_) => {
                QuiesceStep::Hooks
            }
            Self::Cancelled(step) | Self::Left(step) | Self::SlowOpen { step, .. } => *step,
            Self::SlowSync(_) | Self::Freeze(FreezeError::Sync { .. }) => QuiesceStep::Sync,
            Self::Mounts(_)
            | Self::NothingToFreeze { .. }
            | Self::NoneFrozen(_)
            | Self::TooMany(_)
            | Self::Freeze(_)
            | Self::SlowFreeze { .. } => QuiesceStep::Freeze,
            Self::Marker(_)
            | Self::SlowKeeper
            | Self::Keeper(_)
            | Self::Timer(_)
            | Self::Interrupted => QuiesceStep::Keeper,
        }
    }

    fn errno(&self) -> Option<i32> {
        match self {
            Self::Mounts(source)
            | Self::Marker(source)
            | Self::Keeper(source)
            | Self::Timer(source) => source.raw_os_error(),
            Self::Freeze(error) => error.errno(),
            Self::Hook { .. }
            | Self::Hooks(_)
            | Self::SlowHooks(_)
            | Self::Id(_)
            | Self::Cancelled(_)
            | Self::Left(_)
            | Self::SlowOpen { .. }
            | Self::SlowSync(_)
            | Self::NothingToFreeze { .. }
            | Self::NoneFrozen(_)
            | Self::TooMany(_)
            | Self::SlowKeeper
            | Self::SlowFreeze { .. }
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
            QuiesceError::AlreadyQuiesced { .. } | QuiesceError::Changing { .. } => {
                Self::new(ErrorCode::Quiesced, message)
            }
            QuiesceError::NotQuiesced(_) => Self::new(ErrorCode::NotQuiesced, message),
            QuiesceError::Failed(failure) => {
                let mut failed = Self::new(ErrorCode::QuiesceFailed, message);
                failed.step = Some(failure.step().name().to_owned());
                failed.with_errno(failure.errno())
            }
        }
    }
}
