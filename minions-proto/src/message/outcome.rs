//! The five ends of an exec.

use serde::{Deserialize, Serialize};

/// How an exec ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    /// By itself.
    Exited {
        /// Its exit status, 0 to 255.
        code: i32,
    },
    /// By a signal, unless that was ours because its time was up.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether it dumped core.
        core: bool,
        /// Why, where the agent knows. Absent: unknown, or an agent without `exec_limits`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<SignalReason>,
    },
    /// By us, because its time was up.
    TimedOut,
    /// It never ran.
    FailedToStart {
        /// Why not.
        kind: StartFailure,
        /// The kernel's error number, if it was the kernel that said no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
    },
    /// It ran, and nobody knows how it ended.
    Lost {
        /// Why not, for people.
        reason: String,
    },
}

/// Why a program was ended by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalReason {
    /// The guest kernel's out-of-memory killer chose it, or a process that it had started.
    Oom,
    /// A reason minted after this version.
    #[serde(other)]
    Other,
}

/// Why a program could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFailure {
    /// There is no such program.
    NotFound,
    /// It is there, but the kernel won't run it for us.
    NotExecutable,
    /// There is no such user or group.
    UnknownUser,
    /// The working directory is missing or closed to the user.
    Cwd,
    /// Arguments and environment are longer than the kernel takes (E2BIG).
    ArgumentListTooLong,
    /// Anything else; `errno` says more. Also whatever was minted after this version.
    #[serde(other)]
    Other,
}

impl Outcome {
    /// What a shell would show as `$?`: the status, 128+n by signal n, 124 (as `timeout(1)`) when
    /// time was up, 127 and 126 for what is missing or no program, and 125 for the rest.
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
