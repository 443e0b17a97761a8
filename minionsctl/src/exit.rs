//! What the shell gets.

use minions_api::ErrorCode;

/// How the process ends. `exec` is transparent: it ends as the remote program did, and what went
/// wrong on the way to it has codes that `timeout(1)` and shells have made familiar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// Done.
    Success,
    /// Not done; standard error says why. Never of `exec`.
    Failure,
    /// The remote program's own end: its status, 128+n by signal n, 124 when its time was up.
    Remote(u8),
    /// `exec` could not run the program, or lost sight of it.
    Ours,
    /// The remote program can't be executed.
    NotExecutable,
    /// There is no such remote program.
    NotFound,
}

impl ExitStatus {
    /// The number.
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

    /// The remote program's `exit_code`. One that no kernel gives is a broken peer's: that is ours
    /// to report, and never success.
    pub(crate) fn remote(exit_code: i32) -> Self {
        u8::try_from(exit_code).map_or(Self::Ours, Self::Remote)
    }

    /// As a shell shows a process that a signal ended.
    pub(crate) fn by_signal(number: i32) -> Self {
        Self::remote(128 + number)
    }

    /// A program that was not run, by the reason.
    pub(crate) fn of_exec(code: ErrorCode) -> Self {
        match code {
            ErrorCode::CommandNotFound => Self::NotFound,
            ErrorCode::CommandNotExecutable => Self::NotExecutable,
            _ => Self::Ours,
        }
    }
}
