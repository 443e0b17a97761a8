//! Programs: `POST /vms/{vm}/exec`, its WebSocket, `/vms/{vm}/execs`, and `POST /exec` for many
//! VMs.

pub use minions_proto::channel::OutputStream as StreamName;
pub use minions_proto::message::{OnDisconnect, Outcome, SignalReason, StartFailure, Usage};

use crate::problem::Problem;
use crate::vm_name::VmName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest time limit that a caller can request, in milliseconds: one day.
pub const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// Default number of bytes that a collected exec keeps of each stream: 10 MiB.
pub const DEFAULT_OUTPUT_BYTES: u64 = 10 * 1024 * 1024;

/// Largest number of bytes that a collected exec keeps of each stream: 64 MiB. Stream larger
/// outputs.
pub const MAX_OUTPUT_BYTES: u64 = 64 * 1024 * 1024;

/// Media type of a stream of events, one JSON object per line.
pub const NDJSON: &str = "application/x-ndjson";

/// A program to run. No shell is involved: the program receives `args` unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Path in the guest, or a name that the agent looks up in its `PATH`.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, example = "ping"))]
    pub command: String,
    /// Arguments after the program's own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = json!(["-c", "1", "10.0.0.1"])))]
    pub args: Vec<String>,
    /// Environment variables, added to the agent's own; they override variables of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory, an absolute path. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User to run as: a name or number in the guest, optionally followed by a colon and a group.
    /// Default: the agent's user, usually root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Standard input, as text. Default: `/dev/null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Standard input, in base64 (RFC 4648, section 4). Excludes `stdin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// WebSocket only: true if channel 0 is the program's standard input. Default: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<bool>,
    /// Terminal for all three standard streams. The program's output then arrives as standard
    /// output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Tty>,
    /// Time limit in milliseconds. At the limit the agent ends the program and everything that it
    /// started. Default: 10 minutes if the output is collected, none if it is streamed or the
    /// program is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400_000))]
    pub timeout_ms: Option<u64>,
    /// Milliseconds between TERM and KILL when the agent ends the program. Default: 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 60_000))]
    pub kill_grace_ms: Option<u64>,
    /// Resource limits, soft and hard, by their names in setrlimit(2): `nofile`, `as`, `cpu`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = json!({"nofile": 1024})))]
    pub rlimits: BTreeMap<String, u64>,
    /// Bytes of memory that the program and everything that it starts may use together. Beyond that
    /// the guest's kernel ends them (`outcome.reason` is `oom`). Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1, maximum = 9_223_372_036_854_775_807_u64, example = 268_435_456)
    )]
    pub memory_bytes: Option<u64>,
    /// Largest number of processes and threads that the program may have at the same time, itself
    /// included. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1, maximum = 9_223_372_036_854_775_807_u64, example = 64)
    )]
    pub pids: Option<u64>,
    /// Number of bytes that a collected result keeps of each stream, half from the beginning and
    /// half from the end. Default: 10 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 67_108_864))]
    pub max_output_bytes: Option<u64>,
    /// Id of the exec. A second request with this id attaches to the first one's program instead of
    /// running it again. Default: generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", example = "job-17")
    )]
    pub id: Option<String>,
    /// Behaviour when the caller leaves. Default: `kill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// Starts the program and answers at once: 202 with the body of `GET …/execs/{id}`. The program
    /// continues without a client. Not accepted over the WebSocket, where a client sends `leave`
    /// instead, and not for many VMs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
}

/// Size and type of a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Tty {
    /// Number of lines.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, example = 24))]
    pub rows: u16,
    /// Number of characters per line.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, example = 80))]
    pub cols: u16,
    /// Value of `TERM`. Default: `xterm-256color`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

/// First message of a WebSocket that attaches to an exec instead of starting one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Id of the exec.
    pub attach: String,
    /// Offset of the first byte of standard output that the client lacks. Default: the oldest byte
    /// that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_offset: Option<u64>,
    /// Offset of the first byte of standard error that the client lacks. Default: the oldest byte
    /// that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_offset: Option<u64>,
}

/// First message of the daemon on a WebSocket. Channel messages follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachReply {
    /// Always `ok`.
    pub status: String,
    /// Id of the exec.
    pub id: String,
    /// True if this request started the program.
    pub created: bool,
    /// Process id in the guest; 0 if the agent does not report it.
    pub pid: u32,
    /// Offset of the first byte of standard output that follows.
    pub stdout: u64,
    /// Offset of the first byte of standard error that follows.
    pub stderr: u64,
    /// Number of input bytes that the agent has received.
    pub stdin: u64,
    /// Number of input bytes that the program has read.
    pub stdin_acked: u64,
    /// Number of bytes that the client may send beyond `stdin_acked`.
    pub stdin_window: u64,
    /// True if the agent has received the end of the input.
    pub stdin_closed: bool,
    /// Milliseconds for which the program waits for a client to re-attach.
    #[serde(default = "fixed_reattach_grace_ms")]
    pub reattach_grace_ms: u64,
}

/// Returns the re-attach grace of a daemon that does not report it.
fn fixed_reattach_grace_ms() -> u64 {
    15_000
}

/// Result of a program that ran, whether it succeeded or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecResult {
    /// Always `ok`: the program was started.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Id of the exec. Absent if the agent lacks the feature `exec2`. A base agent returns only
    /// `status`, `exit_code`, `stdout` and `stderr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Exit status; 128+n after signal n; 124 after a timeout.
    pub exit_code: i32,
    /// Standard output. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub stdout: String,
    /// Standard error. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub stderr: String,
    /// Standard output as kept, in base64. Present if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// Standard error as kept, in base64. Present if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// Number of bytes that the program wrote to standard output, kept or not.
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
    /// Milliseconds from start to exit, measured in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Resources that the program used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A line of a streamed exec (`Accept: application/x-ndjson`) or of a replay. The last line is an
/// `exit` or an `error`; a replay that does not follow the program can also end with `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecEvent {
    /// The program runs.
    Started {
        /// Id of the exec.
        id: String,
        /// Process id in the guest; 0 if the agent does not report it.
        pid: u32,
        /// True if this request started the program.
        created: bool,
    },
    /// The program wrote to standard output, or to its terminal.
    Stdout(Chunk),
    /// The program wrote to standard error.
    Stderr(Chunk),
    /// Output that is lost permanently.
    Gap {
        /// Stream that lost output.
        stream: StreamName,
        /// Offset of the first lost byte.
        from: u64,
        /// Offset after the last lost byte.
        to: u64,
    },
    /// Sign of life of the agent while there is no output. Sent about every 5 s.
    Heartbeat,
    /// The program ended, and all of its output was sent.
    Exit {
        /// Exit status; 128+n after signal n; 124 after a timeout.
        exit_code: i32,
        /// Outcome of the program.
        outcome: Outcome,
        /// Resources that the program used. Absent for a base agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// The replay is complete, and the program still runs.
    End,
    /// The program could not be started, was lost, or its stream failed.
    Error {
        /// Description of the failure.
        problem: Problem,
    },
}

/// Bytes of a stream: in `data` if they are UTF-8 (no character is split), in `data_base64`
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Chunk {
    /// Offset of the first byte in its stream.
    pub offset: u64,
    /// The bytes as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

/// Execs of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecInfoList {
    /// Running execs and those that ended recently; oldest first.
    pub execs: Vec<ExecInfo>,
}

/// State of an exec, as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecInfo {
    /// Id of the exec.
    pub id: String,
    /// Current state.
    pub state: ExecState,
    /// Command of the program; truncated if it is long.
    pub command: String,
    /// Arguments of the program; truncated if they are long or many.
    pub args: Vec<String>,
    /// User that the program runs as, if not the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// True if the program has a terminal.
    pub tty: bool,
    /// Process id in the guest.
    pub pid: u32,
    /// Milliseconds since the start.
    pub age_ms: u64,
    /// True if a client is attached.
    pub attached: bool,
    /// Behaviour when the client leaves.
    pub on_disconnect: OnDisconnect,
    /// Number of bytes that the program has written to standard output.
    pub stdout_bytes: u64,
    /// Offset of the oldest byte of standard output that is kept.
    pub stdout_kept_from: u64,
    /// Number of bytes that the program has written to standard error.
    pub stderr_bytes: u64,
    /// Offset of the oldest byte of standard error that is kept.
    pub stderr_kept_from: u64,
    /// Number of input bytes that the agent has received.
    pub stdin_bytes: u64,
    /// True if the program still runs although the agent has told it to end: at its time limit, by
    /// `DELETE`, or because its client left. A program that waits in the guest's kernel can ignore
    /// every signal. Absent: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_requested: Option<bool>,
    /// Exit status as a shell would show it. Absent while the program runs, as are `outcome` and
    /// `usage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Outcome of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Resources that the program used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// True for a program that was started before the guest was restored or cloned. Absent:
    /// `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<bool>,
    /// Id that an inherited program was started with. It is free in the present generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_as: Option<String>,
    /// Generation of the guest in which the program was started. Absent: 0, of a guest that was
    /// never restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Number of processes that still run after the exec ended or was lost. `DELETE` ends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_running: Option<u64>,
}

/// State of an exec. `running`: the program runs. `ended`: the program has ended. `lost`: the agent
/// was restarted and lost the exec (`outcome.reason` says when). A lost program may still run
/// (`left_running`) and can be sent signals and deleted; its output and its end are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExecState {
    /// The program runs.
    Running,
    /// The program has ended.
    Ended,
    /// The agent was restarted and lost the exec.
    Lost,
}

/// Signal for a program's process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Name or number of the signal: `TERM`, `SIGINT`, `9`, `RTMIN+1`.
    #[cfg_attr(feature = "openapi", schema(example = "TERM"))]
    pub signal: String,
}

/// Confirmation that the signal was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignalSent {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Text for people, written by the guest.
    pub message: String,
}

/// A program, and the VMs to run it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ManyExecRequest {
    /// VM names, or patterns with `*` and `?`. `*` selects all VMs. Every name must exist and every
    /// pattern must match.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10_000, example = json!(["web-*"])))]
    pub vms: Vec<String>,
    /// Labels that the selected VMs must also have: `app=web,env!=prod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "app=web"))]
    pub label: Option<String>,
    /// Program to run on each VM. Its `id`, if given, is used on all of them.
    pub exec: ExecRequest,
    /// Number of VMs that run the program at the same time. Default: 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 256))]
    pub concurrency: Option<u32>,
    /// True if the first failure prevents further starts. Programs that already run continue to
    /// their end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fail_fast: bool,
}

/// A line of `POST /exec`: one for each VM when its program ends, and a summary at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ManyExecEvent {
    /// The program ran.
    Result {
        /// Name of the VM.
        vm: VmName,
        /// Result of the program.
        result: Box<ExecResult>,
    },
    /// The program did not run, or was lost.
    Problem {
        /// Name of the VM.
        vm: VmName,
        /// `failed_to_start` with the reason, or `lost`.
        outcome: Outcome,
        /// Description of the failure.
        problem: Box<Problem>,
    },
    /// The program was not started, because another one had failed (`fail_fast`).
    Skipped {
        /// Name of the VM.
        vm: VmName,
    },
    /// Sign of life of the daemon while no program ends. Sent about every 5 s.
    Heartbeat,
    /// Totals, as the last line.
    Summary(ManyExecSummary),
}

/// Number of VMs by result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManyExecSummary {
    /// Number of selected VMs.
    pub total: u64,
    /// VMs on which the program exited with 0.
    pub succeeded: u64,
    /// VMs on which the program ended in any other way.
    pub failed: u64,
    /// VMs on which the program did not run, or was lost.
    pub problems: u64,
    /// VMs on which the program was not started.
    pub skipped: u64,
}
