//! `exec_list`, `exec_inspect`, `exec_signal` and `exec_remove`: requests about execs without a stream to them
//! (feature `exec2`).

use super::call::Call;
use super::exec_id::ExecId;
use super::exec_stream::OnDisconnect;
use super::outcome::Outcome;
use super::reply::Done;
use super::signal::Signal;
use serde::{Deserialize, Serialize};

/// Request for all execs of a guest: running ones and those that ended recently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecList {}

impl Call for ExecList {
    type Reply = ExecListed;
    const TYPE: &'static str = "exec_list";
    const IDEMPOTENT: bool = true;
}

/// Reply to [`ExecList`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecListed {
    /// Execs, oldest first; at most 1024.
    #[serde(deserialize_with = "super::bounded::list::<1024, _, _>")]
    pub execs: Vec<ExecInfo>,
}

/// Request for the state of an exec, now or at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecInspect {
    /// Id of the exec.
    pub id: ExecId,
    /// Milliseconds to wait for the end before answering. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

impl Call for ExecInspect {
    type Reply = ExecInfo;
    const TYPE: &'static str = "exec_inspect";
    const IDEMPOTENT: bool = true;
}

/// Request to send a signal to an exec's process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSignal {
    /// Id of the exec.
    pub id: ExecId,
    /// Signal to send.
    pub signal: Signal,
}

impl Call for ExecSignal {
    type Reply = Done;
    const TYPE: &'static str = "exec_signal";
    const IDEMPOTENT: bool = false;
}

/// Request to end an exec if it runs, together with everything that it started, and to remove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRemove {
    /// Id of the exec.
    pub id: ExecId,
}

impl Call for ExecRemove {
    type Reply = ExecInfo;
    const TYPE: &'static str = "exec_remove";
    const IDEMPOTENT: bool = false;
}

/// State of an exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecInfo {
    /// Id of the exec.
    pub id: ExecId,
    /// Command of the program; truncated if it is long.
    pub command: String,
    /// Arguments of the program; truncated if they are long, and at most 64.
    #[serde(default, deserialize_with = "super::bounded::list::<64, _, _>")]
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
    /// Number of input bytes that have arrived.
    pub stdin_bytes: u64,
    /// True if the program still runs although the agent has told it to end: at its time limit, by
    /// `exec_remove`, or because its client left. Absent: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_requested: Option<bool>,
    /// End of the program. Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Resources that the program used. Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// True for a program that was started before the guest was restored or cloned. Absent:
    /// `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<bool>,
    /// Id that an inherited program was started with; it is free in the present generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_as: Option<ExecId>,
    /// Generation of the guest in which the program was started. Absent: 0, the present one of a
    /// guest that was never restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Number of processes that still run after the exec ended or was lost. Absent: none, or
    /// unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_running: Option<u64>,
}

/// Resources that a program used, including its children that it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Milliseconds from start to exit.
    pub wall_ms: u64,
    /// Milliseconds of CPU time in user mode.
    pub user_ms: u64,
    /// Milliseconds of CPU time in the guest's kernel.
    pub system_ms: u64,
    /// Largest resident set of a single process, in bytes.
    pub max_rss_bytes: u64,
}
