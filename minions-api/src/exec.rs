//! `POST /vms/{vm}/exec`.

use serde::{Deserialize, Serialize};

/// The longest time limit that a caller can ask for, in milliseconds: a day.
pub const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// A program to run. No shell is involved: `args` reach it as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// A path in the guest, or a name that is looked up in the agent's `PATH`.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, example = "ping"))]
    pub command: String,
    /// Arguments after the program's own name.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(example = json!(["-c", "1", "10.0.0.1"])))]
    pub args: Vec<String>,
    /// Milliseconds after which the program and its process group are killed. Default: 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400_000))]
    pub timeout_ms: Option<u64>,
}

/// A program that ran, whatever its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecResult {
    /// `ok`: the program was started.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// The exit status; 128+n after signal n; 124 after a timeout.
    pub exit_code: i32,
    /// Standard output. Bytes that are not UTF-8 became U+FFFD.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Bytes that the program really wrote. Absent for a base agent, like all below.
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
    /// Milliseconds from start to exit, measured in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// How a program that was started ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    /// By itself.
    Exited {
        /// Its exit status.
        code: i32,
    },
    /// By a signal.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether it dumped core.
        core: bool,
    },
    /// Killed because its time was up.
    TimedOut,
}
