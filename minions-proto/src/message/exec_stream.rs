//! `exec_start` and `exec_attach`: a program as an object, and the stream to it. Feature `exec2`.
//!
//! If the reply is `ok`, the connection is in [channel mode](crate::channel) from then on.

use super::{Call, ExecId, Outcome};
use crate::error::Invalid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The name in [`AgentInfo::features`](super::AgentInfo::features) of an agent that knows exec
/// objects and channel mode.
pub const FEATURE: &str = "exec2";

/// The name in [`AgentInfo::features`](super::AgentInfo::features) of an agent that knows
/// [`ExecStart::memory_bytes`] and [`ExecStart::pids`], and lists the programs of earlier agents.
pub const LIMITS_FEATURE: &str = "exec_limits";

/// The largest value of [`ExecStart::memory_bytes`] and [`ExecStart::pids`].
pub const MAX_LIMIT: u64 = i64::MAX.unsigned_abs();

/// How often an agent says on a stream that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long an exec whose connection broke waits for somebody to come back, before its
/// `on_disconnect` decides.
pub const REATTACH_GRACE: Duration = Duration::from_secs(15);

/// The longest time limit: a day. What runs longer is a service and wants a supervisor, or no limit.
pub const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// The longest time between TERM and KILL: a minute.
pub const MAX_KILL_GRACE_MS: u64 = 60 * 1000;

/// The resources that `rlimits` may name: those of setrlimit(2), without `RLIMIT_`.
pub const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Start a program, or attach to the one that has this id already: a retry can't run twice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct ExecStart {
    /// Its id. Absent: the agent mints one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ExecId>,
    /// A path, or a name that is looked up in `PATH`.
    pub command: String,
    /// Arguments after the program's own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Added to the agent's own environment, and stronger.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it starts; an absolute path. Absent: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// As whom: a name or a number of the guest's `/etc/passwd`, and after a colon a group, if it
    /// shall not be the user's own ones. Absent: as the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether channel 0 is its standard input. If not, that is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// A terminal for all three of its streams; what it writes comes on channel 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Tty>,
    /// Milliseconds after which it is ended, with everything that it started. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds between TERM and KILL when we end it. Absent: 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_grace_ms: Option<u64>,
    /// Soft and hard limits, by their names in [`RLIMITS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rlimits: BTreeMap<String, u64>,
    /// Bytes of memory that it and all that it starts may use together. Absent: no limit. Feature
    /// `exec_limits`, like the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads that there may be of it at once, itself included. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// What becomes of it when its client goes.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
}

/// What becomes of an exec when its client leaves, or doesn't come back in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It is ended.
    #[default]
    Kill,
    /// It goes on; from then on its oldest output makes room for its newest.
    Detach,
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tty {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
    /// `TERM`. Absent: `xterm-256color`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

impl ExecStart {
    /// The first field that takes an agent with [`LIMITS_FEATURE`], if there is one.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        [("memory_bytes", self.memory_bytes), ("pids", self.pids)]
            .into_iter()
            .find_map(|(field, limit)| limit.map(|_| field))
    }

    /// The first reason why this can't be run, whatever the guest is like.
    ///
    /// # Errors
    ///
    /// The field and what is wrong with it.
    pub fn validate(&self) -> Result<(), Invalid> {
        super::exec::validate_argv(&self.command, &self.args)?;
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) {
                let rule = "must be a name without `=` and NUL";
                return Err(Invalid::value("env", key, rule));
            }
            if value.contains('\0') {
                return Err(Invalid::new(format!("env.{key}"), "contains a NUL byte"));
            }
        }
        match &self.cwd {
            Some(cwd) if !cwd.starts_with('/') || cwd.contains('\0') => {
                return Err(Invalid::value("cwd", cwd, "must be an absolute path"));
            }
            _ => {}
        }
        if let Some(user) = &self.user
            && (user.is_empty() || user.contains(['\0', '\n']))
        {
            return Err(Invalid::value("user", user, "must be a user's name or number"));
        }
        within("timeout_ms", self.timeout_ms, 1, MAX_TIMEOUT_MS)?;
        within("kill_grace_ms", self.kill_grace_ms, 0, MAX_KILL_GRACE_MS)?;
        within("memory_bytes", self.memory_bytes, 1, MAX_LIMIT)?;
        within("pids", self.pids, 1, MAX_LIMIT)?;
        if let Some(name) = self.rlimits.keys().find(|name| !RLIMITS.contains(&name.as_str())) {
            let rule = format!("must name a limit of setrlimit(2): one of {}", RLIMITS.join(", "));
            return Err(Invalid::value("rlimits", name, &rule));
        }
        match &self.tty {
            Some(Tty { rows: 0, .. }) => Err(Invalid::new("tty.rows", "is 0; give at least 1")),
            Some(Tty { cols: 0, .. }) => Err(Invalid::new("tty.cols", "is 0; give at least 1")),
            Some(Tty { term: Some(term), .. }) if term.contains('\0') => {
                Err(Invalid::new("tty.term", "contains a NUL byte"))
            }
            _ => Ok(()),
        }
    }
}

fn within(field: &str, value: Option<u64>, least: u64, most: u64) -> Result<(), Invalid> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(Invalid::new(field, format!("is {value}: must be {least} to {most}")))
        }
        _ => Ok(()),
    }
}

impl Call for ExecStart {
    type Reply = ExecAttached;
    const TYPE: &'static str = "exec_start";
    /// Only with an id, which every sender of ours gives it.
    const IDEMPOTENT: bool = false;
}

/// Come back to an exec, or watch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAttach {
    /// Which.
    pub id: ExecId,
    /// Offset of the first byte of standard output to be sent. Absent: the oldest that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<u64>,
    /// The same of standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<u64>,
    /// How.
    #[serde(default)]
    pub role: Role,
}

/// What a stream is to its exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The client: its stdin is the program's, its acks make room, its going is a disconnect. There
    /// is one; a new one takes over.
    #[default]
    Control,
    /// A reader beside it, of which the program notices nothing. One that is too slow meets gaps.
    Watch,
    /// Likewise, for what is there already: the stream ends where the output does at this moment,
    /// without an `exit` if the program still runs.
    Snapshot,
}

impl Call for ExecAttach {
    type Reply = ExecAttached;
    const TYPE: &'static str = "exec_attach";
    const IDEMPOTENT: bool = true;
}

/// The reply to both. Channel mode begins behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAttached {
    /// The exec's id.
    pub id: ExecId,
    /// Whether this request started it.
    pub created: bool,
    /// Its process id in the guest.
    pub pid: u32,
    /// Offset of the first byte of standard output that follows, unless a gap is said first.
    pub stdout: u64,
    /// The same of standard error.
    pub stderr: u64,
    /// How many bytes of input have arrived: the host goes on from there.
    pub stdin: u64,
    /// How many of those the program has taken.
    pub stdin_acked: u64,
    /// How many bytes of input may be on their way beyond those that the program has taken.
    pub stdin_window: u64,
    /// Whether the input's end has arrived.
    pub stdin_closed: bool,
}

/// All execs of a guest: those that run, and those that ended not long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecList {}

impl Call for ExecList {
    type Reply = ExecListed;
    const TYPE: &'static str = "exec_list";
    const IDEMPOTENT: bool = true;
}

/// The reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecListed {
    /// Oldest first; at most 1024.
    #[serde(deserialize_with = "super::bounded::list::<1024, _, _>")]
    pub execs: Vec<ExecInfo>,
}

/// One exec; or wait for its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecInspect {
    /// Which.
    pub id: ExecId,
    /// Milliseconds to wait for its end before answering. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

impl Call for ExecInspect {
    type Reply = ExecInfo;
    const TYPE: &'static str = "exec_inspect";
    const IDEMPOTENT: bool = true;
}

/// Send a signal to an exec's process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSignal {
    /// Which exec.
    pub id: ExecId,
    /// Which signal.
    pub signal: super::Signal,
}

impl Call for ExecSignal {
    type Reply = super::Done;
    const TYPE: &'static str = "exec_signal";
    const IDEMPOTENT: bool = false;
}

/// End an exec if it runs, with everything that it started, and forget it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRemove {
    /// Which.
    pub id: ExecId,
}

impl Call for ExecRemove {
    type Reply = ExecInfo;
    const TYPE: &'static str = "exec_remove";
    const IDEMPOTENT: bool = false;
}

/// What an agent knows of an exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecInfo {
    /// Its id.
    pub id: ExecId,
    /// The program and its arguments; cut if they are long.
    pub command: String,
    /// Likewise; at most 64 of them.
    #[serde(default, deserialize_with = "super::bounded::list::<64, _, _>")]
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
    /// Whether it runs although the agent has told it to end: at its time limit, by `exec_remove`, or because its
    /// client is gone. Absent: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_requested: Option<bool>,
    /// Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Processes of an exec that ended or was lost which run on. Absent: none, or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_running: Option<u64>,
}

/// What a program used, those of its children that it waited for included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Milliseconds from start to exit.
    pub wall_ms: u64,
    /// Milliseconds of CPU time in user mode.
    pub user_ms: u64,
    /// Milliseconds of CPU time in the kernel.
    pub system_ms: u64,
    /// The largest resident set of a single process, in bytes.
    pub max_rss_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(change: impl FnOnce(&mut ExecStart)) -> Result<(), String> {
        let mut start = ExecStart { command: "true".into(), ..ExecStart::default() };
        change(&mut start);
        start.validate().map_err(|invalid| invalid.field)
    }

    fn with_env(key: &str, value: &str) -> Result<(), String> {
        start(|s| s.env = BTreeMap::from([(key.into(), value.into())]))
    }

    #[test]
    fn what_no_guest_could_run_is_refused_by_its_field() {
        let wrong = |change: fn(&mut ExecStart)| start(change).unwrap_err();
        assert_eq!(wrong(|s| s.command.clear()), "command");
        assert_eq!(wrong(|s| s.args = vec!["a".into(), "\0".into()]), "args[1]");
        for key in ["", "A=B", "A\0"] {
            assert_eq!(with_env(key, "").unwrap_err(), "env", "{key:?}");
        }
        assert_eq!(with_env("A", "\0").unwrap_err(), "env.A");
        assert_eq!(wrong(|s| s.cwd = Some("tmp".into())), "cwd");
        assert_eq!(wrong(|s| s.user = Some(String::new())), "user");
        assert_eq!(wrong(|s| s.timeout_ms = Some(0)), "timeout_ms");
        assert_eq!(wrong(|s| s.timeout_ms = Some(MAX_TIMEOUT_MS + 1)), "timeout_ms");
        assert_eq!(wrong(|s| s.kill_grace_ms = Some(MAX_KILL_GRACE_MS + 1)), "kill_grace_ms");
        for limit in [0, MAX_LIMIT + 1, u64::MAX] {
            assert_eq!(start(|s| s.memory_bytes = Some(limit)).unwrap_err(), "memory_bytes");
            assert_eq!(start(|s| s.pids = Some(limit)).unwrap_err(), "pids");
        }
        assert_eq!(wrong(|s| s.rlimits = [("nofiles".into(), 1)].into()), "rlimits");
        assert_eq!(wrong(|s| s.tty = Some(Tty { rows: 0, cols: 1, term: None })), "tty.rows");
    }

    #[test]
    fn what_a_guest_may_be_able_to_run_is_left_to_it() {
        let right = |change: fn(&mut ExecStart)| start(change).unwrap();
        right(|_| ());
        with_env("A", "B=C").unwrap();
        right(|s| s.user = Some("nobody:0".into()));
        right(|s| s.kill_grace_ms = Some(0));
        right(|s| (s.memory_bytes, s.pids) = (Some(1), Some(MAX_LIMIT)));
        right(|s| s.rlimits = [("nofile".into(), 64)].into());
    }
}
