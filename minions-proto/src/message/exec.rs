//! `exec`: run a program, wait for it, collect its output.

use super::{Call, Outcome};
use crate::error::Invalid;
use serde::{Deserialize, Serialize};

/// The request. No shell is involved: `command` is a program, `args` are its arguments as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// A path, or a name that is looked up in the agent's `PATH`.
    pub command: String,
    /// Arguments after the program's own name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Milliseconds after which the program's process group is killed. Absent: the agent's default.
    /// Since protocol 2; a base agent ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Exec {
    /// The first reason why no kernel would take this argv: an empty command, or a NUL in it.
    ///
    /// # Errors
    ///
    /// The field and what is wrong with it.
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

/// The reply: the program ran and ended, whatever its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReply {
    /// The exit status; 128+n after signal n; 124 after a timeout.
    pub exit_code: i32,
    /// Standard output as text: bytes that are not UTF-8 became U+FFFD. If it didn't fit the frame,
    /// its head and its tail, with a line between them that says how much is missing.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Bytes that the program really wrote. This and all below: since protocol 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_bytes: Option<u64>,
    /// Bytes that the program really wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_bytes: Option<u64>,
    /// Whether `stdout` lacks its middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_truncated: Option<bool>,
    /// Whether `stderr` lacks its middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_truncated: Option<bool>,
    /// Which end it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Milliseconds from start to exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}
