//! `exec_start` and `exec_attach`: a program as an object, and a stream to it (feature `exec2`).
//!
//! After an `ok` reply to `exec_start` or `exec_attach`, the connection is in [channel
//! mode](crate::channel).

use super::call::Call;
use super::exec_id::ExecId;
use crate::error::Invalid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Largest value of [`ExecStart::memory_bytes`] and [`ExecStart::pids`].
pub const MAX_LIMIT: u64 = i64::MAX.unsigned_abs();

/// Interval of an agent's heartbeats on a stream.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// Default time for which an exec whose connection broke waits for a client to re-attach, before its
/// `on_disconnect` applies. See [`ExecStart::reattach_grace_ms`].
pub const REATTACH_GRACE: Duration = Duration::from_secs(60);

/// Fixed time of agents that do not report [`ExecAttached::reattach_grace_ms`].
const FIXED_REATTACH_GRACE: Duration = Duration::from_secs(15);

/// Shortest and longest re-attach grace, in milliseconds: one second and one hour. Meanwhile the program runs without a
/// client, or waits for one with all of its unacknowledged output in the agent's memory.
pub const MIN_REATTACH_GRACE_MS: u64 = 1000;
/// See [`MIN_REATTACH_GRACE_MS`].
pub const MAX_REATTACH_GRACE_MS: u64 = 60 * 60 * 1000;

/// Largest time limit, in milliseconds: one day. A program that runs longer needs a service
/// supervisor, or no limit.
pub const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// Largest time between TERM and KILL, in milliseconds: one minute.
pub const MAX_KILL_GRACE_MS: u64 = 60 * 1000;

/// Resources that `rlimits` may name: those of setrlimit(2), without `RLIMIT_`.
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

/// Request to start a program, or to attach to the exec that already has this id: a retry cannot
/// run the program twice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct ExecStart {
    /// Id of the exec. Absent: the agent generates one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ExecId>,
    /// Path in the guest, or a name that the agent looks up in its `PATH`.
    pub command: String,
    /// Arguments after the program's own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables, added to the agent's own; they override variables of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory, an absolute path. Absent: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User to run as: a name or number in the guest's `/etc/passwd`, optionally followed by a
    /// colon and a group that replaces the user's own groups. Absent: the agent's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// True if channel 0 is the program's standard input. Otherwise that is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Terminal for all three standard streams; the output arrives on channel 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Tty>,
    /// Time limit in milliseconds, after which the agent ends the program and everything that it
    /// started. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds between TERM and KILL when the agent ends the program. Absent: 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_grace_ms: Option<u64>,
    /// Soft and hard limits, by their names in [`RLIMITS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rlimits: BTreeMap<String, u64>,
    /// Bytes of memory that the program and everything that it starts may use together. Absent: no
    /// limit. Requires feature `exec_limits`, as does `pids`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Largest number of processes and threads at the same time, the program included. Absent: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Behaviour when the client leaves.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
    /// Milliseconds for which the exec waits for a client to re-attach after its connection broke, before
    /// `on_disconnect` applies. Absent: [`REATTACH_GRACE`]. Agents that do not report it in their reply wait 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reattach_grace_ms: Option<u64>,
}

/// Behaviour of an exec whose client leaves, or does not re-attach in time: `kill` ends it and
/// everything that it started; `detach` lets it continue, and its newest output replaces the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// The program is ended, and everything that it started.
    #[default]
    Kill,
    /// The program continues; from then on its newest output replaces the oldest.
    Detach,
}

/// Size and type of a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tty {
    /// Number of lines.
    pub rows: u16,
    /// Number of characters per line.
    pub cols: u16,
    /// Value of `TERM`. Absent: `xterm-256color`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

impl ExecStart {
    /// Returns the first field that requires [`Feature::ExecLimits`](super::Feature::ExecLimits), if there is one.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        [("memory_bytes", self.memory_bytes), ("pids", self.pids)]
            .into_iter()
            .find_map(|(field, limit)| limit.map(|_| field))
    }

    /// Checks for values that no guest can run.
    ///
    /// # Errors
    ///
    /// The first invalid field, and the reason.
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
            return Err(Invalid::value("user", user, "must be a user name or number"));
        }
        within("timeout_ms", self.timeout_ms, 1, MAX_TIMEOUT_MS)?;
        within_reattach_grace(self.reattach_grace_ms)?;
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

/// Checks the bounds of a re-attach grace.
pub(in crate::message) fn within_reattach_grace(value: Option<u64>) -> Result<(), Invalid> {
    within("reattach_grace_ms", value, MIN_REATTACH_GRACE_MS, MAX_REATTACH_GRACE_MS)
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
    /// Only a request with an id can be repeated, and every sender in this project sets one.
    const IDEMPOTENT: bool = false;
}

/// Request to re-attach to an exec, or to watch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAttach {
    /// Id of the exec.
    pub id: ExecId,
    /// Offset of the first byte of standard output to send. Absent: the oldest byte that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<u64>,
    /// Offset of the first byte of standard error to send. Absent: the oldest byte that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<u64>,
    /// Relation of the stream to the exec.
    #[serde(default)]
    pub role: Role,
}

/// Relation of a stream to its exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Client that controls the exec: its input is the program's, its acks free memory, and its
    /// loss is a disconnect. There is one at a time; a new one takes over.
    #[default]
    Control,
    /// Additional reader that does not affect the program. If it is too slow it receives gaps.
    Watch,
    /// Reader of the output that exists already: the stream ends at the output's current end,
    /// without an `exit` if the program still runs.
    Snapshot,
}

impl Call for ExecAttach {
    type Reply = ExecAttached;
    const TYPE: &'static str = "exec_attach";
    const IDEMPOTENT: bool = true;
}

/// Reply to [`ExecStart`] and [`ExecAttach`]. Channel mode begins after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAttached {
    /// Id of the exec.
    pub id: ExecId,
    /// True if this request started the program.
    pub created: bool,
    /// Process id in the guest.
    pub pid: u32,
    /// Offset of the first byte of standard output that follows, unless a gap is announced first.
    pub stdout: u64,
    /// Offset of the first byte of standard error that follows, unless a gap is announced first.
    pub stderr: u64,
    /// Number of input bytes that have arrived; the host continues after them.
    pub stdin: u64,
    /// Number of input bytes that the program has read.
    pub stdin_acked: u64,
    /// Number of input bytes that the host may send beyond `stdin_acked`.
    pub stdin_window: u64,
    /// True if the end of the input has arrived.
    pub stdin_closed: bool,
    /// Milliseconds for which the exec waits for a client to re-attach. Absent: the agent waits 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reattach_grace_ms: Option<u64>,
}

impl ExecAttached {
    /// Returns the time for which the exec waits for a client to re-attach.
    #[must_use]
    pub fn reattach_grace(&self) -> Duration {
        let reported = self.reattach_grace_ms.map(|ms| ms.min(MAX_REATTACH_GRACE_MS));
        reported.map_or(FIXED_REATTACH_GRACE, Duration::from_millis)
    }
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
    fn values_that_no_guest_can_run_are_rejected_with_their_field() {
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
        for grace in [0, 999, MAX_REATTACH_GRACE_MS + 1, u64::MAX] {
            let refused = start(|s| s.reattach_grace_ms = Some(grace)).unwrap_err();
            assert_eq!(refused, "reattach_grace_ms");
        }
        for limit in [0, MAX_LIMIT + 1, u64::MAX] {
            assert_eq!(start(|s| s.memory_bytes = Some(limit)).unwrap_err(), "memory_bytes");
            assert_eq!(start(|s| s.pids = Some(limit)).unwrap_err(), "pids");
        }
        assert_eq!(wrong(|s| s.rlimits = [("nofiles".into(), 1)].into()), "rlimits");
        assert_eq!(wrong(|s| s.tty = Some(Tty { rows: 0, cols: 1, term: None })), "tty.rows");
    }

    #[test]
    fn values_that_depend_on_the_guest_are_accepted() {
        let right = |change: fn(&mut ExecStart)| start(change).unwrap();
        right(|_| ());
        with_env("A", "B=C").unwrap();
        right(|s| s.user = Some("nobody:0".into()));
        right(|s| s.kill_grace_ms = Some(0));
        right(|s| (s.memory_bytes, s.pids) = (Some(1), Some(MAX_LIMIT)));
        right(|s| (s.memory_bytes, s.pids) = (Some(MAX_LIMIT), Some(1)));
        right(|s| s.rlimits = [("nofile".into(), 64)].into());
    }
}
