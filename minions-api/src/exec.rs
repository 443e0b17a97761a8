//! Running programs: `POST /vms/{vm}/exec`, its WebSocket, `/vms/{vm}/execs`, and `POST /exec` on
//! many VMs.

use crate::{Problem, VmName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest time limit that a caller can ask for, in milliseconds: a day.
pub const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// Output that a collected exec keeps of each stream if its caller doesn't say: 10 MiB.
pub const DEFAULT_OUTPUT_BYTES: u64 = 10 * 1024 * 1024;

/// The most that it keeps: 64 MiB. More is for a stream.
pub const MAX_OUTPUT_BYTES: u64 = 64 * 1024 * 1024;

/// The media type of a stream of events, one JSON object a line.
pub const NDJSON: &str = "application/x-ndjson";

/// A program to run. No shell is involved: `args` reach it as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// A path in the guest, or a name that is looked up in the agent's `PATH`.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, example = "ping"))]
    pub command: String,
    /// Arguments after the program's own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = json!(["-c", "1", "10.0.0.1"])))]
    pub args: Vec<String>,
    /// Added to the agent's own environment, and stronger.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it starts, an absolute path. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// As whom: a user's name or number in the guest, and after a colon a group. Default: as the
    /// agent, which is root as a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its standard input, as text. Default: none, `/dev/null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Its standard input, in base64 (RFC 4648, section 4). Instead of `stdin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// WebSocket only: whether channel 0 is its standard input. Default there: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<bool>,
    /// A terminal for all three of its streams. What it writes is its standard output then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Tty>,
    /// Milliseconds after which it is ended, with everything that it started. Default: 10 minutes
    /// if the output is collected, none if it is streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400_000))]
    pub timeout_ms: Option<u64>,
    /// Milliseconds between TERM and KILL when it is ended. Default: 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 60_000))]
    pub kill_grace_ms: Option<u64>,
    /// Resource limits, soft and hard, by their names in setrlimit(2): `nofile`, `as`, `cpu`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(example = json!({"nofile": 1024})))]
    pub rlimits: BTreeMap<String, u64>,
    /// Bytes of memory that the program and everything that it starts may use together. Beyond that the
    /// guest's kernel ends it (`outcome.reason` is `oom`). Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1, maximum = 9_223_372_036_854_775_807_u64, example = 268_435_456)
    )]
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the program that there may be at once, itself included. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1, maximum = 9_223_372_036_854_775_807_u64, example = 64)
    )]
    pub pids: Option<u64>,
    /// Bytes of each stream that a collected result keeps, half of them from the stream's beginning
    /// and half from its end. Default: 10 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 67_108_864))]
    pub max_output_bytes: Option<u64>,
    /// Its id: the same request with the same id runs once. Default: minted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", example = "job-17")
    )]
    pub id: Option<String>,
    /// What becomes of it when its caller goes. Default: `kill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// Start it and answer at once, 202 with what `GET …/execs/{id}` would say. It goes on by
    /// itself. Not over the WebSocket, where leaving does the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
}

/// What becomes of an exec when its caller goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It is ended, with everything that it started.
    Kill,
    /// It goes on. Its oldest output makes room for its newest.
    Detach,
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Tty {
    /// Lines.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, example = 24))]
    pub rows: u16,
    /// Characters a line.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, example = 80))]
    pub cols: u16,
    /// `TERM`. Default: `xterm-256color`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

/// The first message of a WebSocket that comes back to an exec instead of starting one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Its id.
    pub attach: String,
    /// Offset of the first byte of standard output that the client lacks. Default: the oldest that
    /// is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_offset: Option<u64>,
    /// The same of standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_offset: Option<u64>,
}

/// The first message that the daemon sends on a WebSocket. Channel messages follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// `ok`.
    pub status: String,
    /// The exec's id.
    pub id: String,
    /// Whether this request started it.
    pub created: bool,
    /// Its process id in the guest; 0 behind an agent that doesn't tell.
    pub pid: u32,
    /// Offset of the first byte of standard output that follows.
    pub stdout: u64,
    /// The same of standard error.
    pub stderr: u64,
    /// How many bytes of input the agent has.
    pub stdin: u64,
    /// How many of those the program has taken.
    pub stdin_acked: u64,
    /// How many bytes may be on their way beyond those.
    pub stdin_window: u64,
    /// Whether the input's end has arrived.
    pub stdin_closed: bool,
}

/// A program that ran, whatever its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecResult {
    /// `ok`: the program was started.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// The exec's id. Absent for a base agent, like everything below but the two streams' text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The exit status; 128+n after signal n; 124 after a timeout.
    pub exit_code: i32,
    /// Standard output. Bytes that are not UTF-8 became U+FFFD.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// What was kept of standard output, if that isn't UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// What was kept of standard error, if that isn't UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// Bytes that the program really wrote.
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
    /// What it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// How an exec ended.
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
        /// Why, where the agent knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<SignalReason>,
    },
    /// Ended because its time was up.
    TimedOut,
    /// It never ran.
    FailedToStart {
        /// Why not.
        kind: StartFailure,
        /// The guest kernel's error number, if it was the kernel that said no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
    },
    /// It ran, and nobody knows how it ended.
    Lost {
        /// Why not.
        reason: String,
    },
}

/// Why a program was ended by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SignalReason {
    /// The guest kernel's out-of-memory killer chose it, or a process that it had started.
    Oom,
    /// Another reason, known to a newer agent.
    Other,
}

/// Why a program could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StartFailure {
    /// There is no such program.
    NotFound,
    /// It is there, but the kernel won't run it.
    NotExecutable,
    /// There is no such user or group.
    UnknownUser,
    /// The working directory is missing or closed to the user.
    Cwd,
    /// Arguments and environment are longer than the kernel takes.
    ArgumentListTooLong,
    /// Anything else.
    Other,
}

/// What a program used, those of its children that it waited for included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Milliseconds from start to exit.
    pub wall_ms: u64,
    /// Milliseconds of CPU time in user mode.
    pub user_ms: u64,
    /// Milliseconds of CPU time in the guest's kernel.
    pub system_ms: u64,
    /// The largest resident set of a single process, in bytes.
    pub max_rss_bytes: u64,
}

/// One line of a streamed exec (`Accept: application/x-ndjson`) or of a replay. The last one is an
/// `exit` or an `error`, or, of a replay that doesn't follow, an `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecEvent {
    /// It runs.
    Started {
        /// Its id.
        id: String,
        /// Its process id in the guest; 0 behind an agent that doesn't tell.
        pid: u32,
        /// Whether this request started it.
        created: bool,
    },
    /// It wrote to its standard output, or to its terminal.
    Stdout(Chunk),
    /// It wrote to its standard error.
    Stderr(Chunk),
    /// Output that is gone for ever.
    Gap {
        /// `stdout` or `stderr`.
        stream: StreamName,
        /// Offset of the first lost byte.
        from: u64,
        /// Offset behind the last.
        to: u64,
    },
    /// Nothing happened, but the agent is alive. About every 5 s.
    Heartbeat,
    /// It ended, and all of its output was sent.
    Exit {
        /// The exit status; 128+n after signal n; 124 after a timeout.
        exit_code: i32,
        /// Which end it was.
        outcome: Outcome,
        /// What it used. Absent for a base agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// The replay is complete; the program still runs.
    End,
    /// It could not be started, or was lost.
    Error {
        /// Why.
        problem: Problem,
    },
}

/// Which of a program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StreamName {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes of a stream: `data` if they are UTF-8 (a character is never cut in half), `data_base64` if
/// not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Chunk {
    /// Offset of the first byte in its stream.
    pub offset: u64,
    /// As text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// In base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

/// `GET /vms/{vm}/execs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecInfoList {
    /// Those that run, and those that ended not long ago; oldest first.
    pub execs: Vec<ExecInfo>,
}

/// What the agent knows of an exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecInfo {
    /// Its id.
    pub id: String,
    /// Whether it runs.
    pub state: ExecState,
    /// The program; cut if it is long.
    pub command: String,
    /// Its arguments; cut if they are long or many.
    pub args: Vec<String>,
    /// As whom, if not as the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Its process id in the guest.
    pub pid: u32,
    /// Milliseconds since it was started.
    pub age_ms: u64,
    /// Whether a client is there.
    pub attached: bool,
    /// What becomes of it when its client goes.
    pub on_disconnect: OnDisconnect,
    /// Bytes that it has written to standard output.
    pub stdout_bytes: u64,
    /// Offset of the oldest that is kept.
    pub stdout_kept_from: u64,
    /// Bytes that it has written to standard error.
    pub stderr_bytes: u64,
    /// Offset of the oldest that is kept.
    pub stderr_kept_from: u64,
    /// Bytes of input that have arrived for it.
    pub stdin_bytes: u64,
    /// Whether it runs although the agent has told it to end: at its time limit, by `DELETE`, or because its client
    /// is gone. A program that waits in the guest's kernel can ignore every signal. Absent: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_requested: Option<bool>,
    /// The exit status as a shell would show it. Absent while it runs, like all below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Which end it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Processes of an exec that ended or was lost which run on. `DELETE` ends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_running: Option<u64>,
}

/// Whether an exec runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExecState {
    /// It runs.
    Running,
    /// It has ended.
    Ended,
    /// The agent lost it, because the agent was restarted: `outcome.reason` says when. It may run on
    /// (`left_running`), can be sent signals and deleted; its output and its end are not known.
    Lost,
}

/// `POST /vms/{vm}/execs/{id}/signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// A signal's name or number: `TERM`, `SIGINT`, `9`, `RTMIN+1`.
    #[cfg_attr(feature = "openapi", schema(example = "TERM"))]
    pub signal: String,
}

/// The signal was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignalSent {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// For people. Guest-made.
    pub message: String,
}

/// `POST /exec`: one program on many VMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ManyExecRequest {
    /// VM names, or patterns with `*` and `?`. `*` is all of them. Every name must exist and every
    /// pattern must match.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10_000, example = json!(["web-*"])))]
    pub vms: Vec<String>,
    /// What to run on each. Its `id`, if given, is each VM's.
    pub exec: ExecRequest,
    /// How many at once. Default: 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 256))]
    pub concurrency: Option<u32>,
    /// Whether none is started any more once one has failed. Those under way come to their end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fail_fast: bool,
}

/// One line of `POST /exec`: one for each VM as it ends, and a summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ManyExecEvent {
    /// It ran.
    Result {
        /// Where.
        vm: VmName,
        /// How it ended.
        result: Box<ExecResult>,
    },
    /// It didn't run, or was lost.
    Problem {
        /// Where.
        vm: VmName,
        /// Whether and why it never ran, or that it was lost.
        outcome: Outcome,
        /// Why.
        problem: Box<Problem>,
    },
    /// It was not started, because another had failed (`fail_fast`).
    Skipped {
        /// Where.
        vm: VmName,
    },
    /// Nothing happened, but the daemon is alive. About every 5 s.
    Heartbeat,
    /// The last line.
    Summary(ManyExecSummary),
}

/// How many ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManyExecSummary {
    /// VMs in all.
    pub total: u64,
    /// The program ended with 0.
    pub succeeded: u64,
    /// It ended with something else.
    pub failed: u64,
    /// It didn't run, or was lost.
    pub problems: u64,
    /// It was not started.
    pub skipped: u64,
}
