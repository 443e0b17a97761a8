//! End of an exec.

use serde::{Deserialize, Serialize};

/// End of an exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    /// The program exited.
    Exited {
        /// Exit status, 0 to 255.
        code: i32,
    },
    /// A signal ended the program, other than the agent's own at the time limit.
    Signaled {
        /// Number of the signal.
        signal: i32,
        /// True if the program dumped core.
        core: bool,
        /// Reason for the signal. Absent: unknown, or an agent without `exec_limits`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<SignalReason>,
    },
    /// The agent ended the program at its time limit.
    TimedOut,
    /// The program never ran.
    FailedToStart {
        /// Reason why it could not be started.
        kind: StartFailure,
        /// Error number of the guest's kernel, if the kernel refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
    },
    /// The program ran, and its end is not known.
    Lost {
        /// Reason why the end is not known, for people.
        reason: String,
    },
}

/// Reason why a signal ended a program: `oom` (the guest's kernel ran out of memory and chose the
/// program or one that it had started) or `other` (a reason that only a newer agent knows).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SignalReason {
    /// The guest kernel's out-of-memory killer chose the program, or a process that it had started.
    Oom,
    /// A reason that was added after this version.
    #[serde(other)]
    Other,
}

/// Reason why a program could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StartFailure {
    /// The guest has no such program.
    NotFound,
    /// The guest's kernel refuses to run the program.
    NotExecutable,
    /// The guest has no such user or group.
    UnknownUser,
    /// The working directory is missing, or the user has no access to it.
    Cwd,
    /// Arguments and environment exceed the limit of the guest's kernel (E2BIG).
    ArgumentListTooLong,
    /// Any other reason, including those that were added after this version; `errno` may say more.
    #[serde(other)]
    Other,
}

impl Outcome {
    /// Returns the value that a shell would show as `$?`: the status, 128+n after signal n, 124 at
    /// the time limit (as `timeout(1)`), 127 if the program does not exist, 126 if it cannot be
    /// executed, and 125 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exited { code } => *code,
            Self::Signaled { signal, .. } => 128 + signal,
            Self::TimedOut => 124,
            Self::FailedToStart { kind: StartFailure::NotFound, .. } => 127,
            Self::FailedToStart { kind: StartFailure::NotExecutable, .. } => 126,
            Self::FailedToStart { .. } | Self::Lost { .. } => 125,
        }
    }
}
