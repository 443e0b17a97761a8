//! `exec`: runs a program, waits for it and collects its output.

use super::call::Call;
use super::outcome::Outcome;
use crate::error::Invalid;
use serde::{Deserialize, Serialize};

/// Request to run a program. No shell is involved: the program receives `args` unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Path in the guest, or a name that the agent looks up in its `PATH`.
    pub command: String,
    /// Arguments after the program's own name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Time limit in milliseconds, after which the agent kills the program's process group. Absent:
    /// the agent's default. Since protocol 2; a base agent ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Exec {
    /// Checks for values that no kernel accepts: an empty command, or a NUL byte.
    ///
    /// # Errors
    ///
    /// The first invalid field, and the reason.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_argv(&self.command, &self.args)?;
        if self.timeout_ms == Some(0) {
            return Err(Invalid::new("timeout_ms", "is 0; give at least 1 millisecond"));
        }
        Ok(())
    }
}

pub(super) fn validate_argv(command: &str, args: &[String]) -> Result<(), Invalid> {
    if command.is_empty() {
        return Err(Invalid::new("command", "is empty; name a program"));
    }
    if command.contains('\0') {
        return Err(Invalid::new("command", "contains a NUL byte"));
    }
    match args.iter().position(|arg| arg.contains('\0')) {
        Some(at) => Err(Invalid::new(format!("args[{at}]"), "contains a NUL byte")),
        None => Ok(()),
    }
}

impl Call for Exec {
    type Reply = ExecReply;
    const TYPE: &'static str = "exec";
    const IDEMPOTENT: bool = false;
}

/// Result of a program that ran, whether it succeeded or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReply {
    /// Exit status; 128+n after signal n; 124 after a timeout.
    pub exit_code: i32,
    /// Standard output as text; bytes that are not UTF-8 are replaced by U+FFFD. If it did not fit
    /// in the frame: its head and tail, with a line between them that states the number of missing
    /// bytes.
    pub stdout: String,
    /// Standard error, in the same form.
    pub stderr: String,
    /// Number of bytes that the program wrote to standard output, kept or not. This field and all
    /// that follow: since protocol 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_bytes: Option<u64>,
    /// Number of bytes that the program wrote to standard error, kept or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_bytes: Option<u64>,
    /// True if the middle of `stdout` was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_truncated: Option<bool>,
    /// True if the middle of `stderr` was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_truncated: Option<bool>,
    /// Outcome of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Milliseconds from start to exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}
