//! Exit codes.

use minions_api::ErrorCode;

/// Exit status of minionsctl. `exec` ends as the remote program did; its own failures have the exit codes of
/// `timeout(1)` and shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// The command succeeded.
    Success,
    /// The command failed; standard error has the reason. Never used for `exec`.
    Failure,
    /// Exit code of the remote program: its own, 128+n after signal n, 124 at the time limit.
    Remote(u8),
    /// `exec` could not run the program, or lost it.
    Ours,
    /// The remote program cannot be executed.
    NotExecutable,
    /// The remote program does not exist.
    NotFound,
}

impl ExitStatus {
    /// Returns the exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Remote(code) => code,
            Self::Ours => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
        }
    }

    /// Converts the remote program's `exit_code`. A value outside 0 to 255 comes from a broken peer and becomes
    /// 125, never success.
    pub(crate) fn remote(exit_code: i32) -> Self {
        u8::try_from(exit_code).map_or(Self::Ours, Self::Remote)
    }

    /// Returns the status for an end by signal `number`, as shells do: 128 + `number`.
    pub(crate) fn by_signal(number: i32) -> Self {
        Self::remote(128 + number)
    }

    /// Returns the status for a program that was not run, by the code of the problem.
    pub(crate) fn of_exec(code: ErrorCode) -> Self {
        match code {
            ErrorCode::CommandNotFound => Self::NotFound,
            ErrorCode::CommandNotExecutable => Self::NotExecutable,
            _ => Self::Ours,
        }
    }
}
