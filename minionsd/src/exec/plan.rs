//! A program to be run, with its time limits.

use crate::agent::AgentRefusal;
use bytes::Bytes;
use minions_proto::message::{Exec, ExecId, ExecStart, Feature, MAX_TIMEOUT_MS};
use std::time::Duration;

/// Time limit of a collected program whose caller sets none.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Kill grace of an agent if the caller sets none.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// Time that a call may take beyond the program's time limit: up to 8 s for a connection (a permit, a ping, a dial), the
/// time until the agent sees the death of a killed program, and the transfer of the reply.
const AFTER_LIMIT: Duration = Duration::from_secs(20);

/// Deadline for the single reply of a plain agent to a program without a time limit.
const ENDLESS: Duration = Duration::from_millis(MAX_TIMEOUT_MS);

/// Field of a request with the time limit, which a plain agent may support.
pub(crate) const TIME_LIMIT: &str = "timeout_ms";

/// Party that follows a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecFollower {
    /// The daemon. It sends `leave` when its caller goes away, also during the start.
    Daemon,
    /// The caller, over a WebSocket. It may re-attach, also after a failed start, so the daemon never leaves for it.
    Client,
}

/// A program to be run.
#[derive(Debug)]
pub(crate) struct ExecPlan {
    pub(crate) id: ExecId,
    /// The wire's message, with the id.
    pub(crate) start: ExecStart,
    /// Standard input.
    pub(crate) stdin: Option<Bytes>,
    /// Bytes to keep of the beginning, and of the end, of each output.
    pub(crate) keep: usize,
    /// The program continues after the request.
    pub(crate) detach: bool,
    pub(crate) follower: ExecFollower,
    /// Fields of the request that a base agent does not support.
    pub(crate) beyond_base: Vec<&'static str>,
    /// Time after which the caller has no use for the result; `None` if the caller sets none.
    pub(crate) patience: Option<Duration>,
}

impl ExecPlan {
    /// Limits a program whose result is collected: to the default time limit if the caller set none; and, on an agent
    /// that cannot be told to end a program, to the caller's `patience`.
    pub(crate) fn collected(mut self, patience: Option<Duration>) -> Self {
        self.start.timeout_ms = self.start.timeout_ms.or(milliseconds(DEFAULT_LIMIT));
        self.patience = patience;
        self
    }

    /// Returns the time that the whole call may take. The time limit does not include the kill grace.
    pub(crate) fn longest_call(&self) -> Duration {
        let grace = self.start.kill_grace_ms.map_or(KILL_GRACE, Duration::from_millis);
        let longest = self.start.timeout_ms.map(|ms| Duration::from_millis(ms) + grace);
        longest.unwrap_or(ENDLESS) + AFTER_LIMIT
    }

    /// Converts the plan to a request for a plain agent. `limits` tells whether that agent supports time limits.
    ///
    /// # Errors
    ///
    /// [`AgentRefusal::TooOld`], naming the fields that the agent does not support.
    pub(crate) fn plain(&self, limits: bool) -> Result<Exec, AgentRefusal> {
        let beyond = self.beyond_base.iter().filter(|field| !limits || **field != TIME_LIMIT);
        let beyond: Vec<_> = beyond.copied().collect();
        if !beyond.is_empty() {
            return Err(AgentRefusal::too_old(Feature::Exec, &beyond));
        }
        let ExecStart { command, args, timeout_ms, .. } = &self.start;
        let patience = self.patience.and_then(milliseconds);
        let timeout_ms = timeout_ms.filter(|_| limits).map(|ms| ms.min(patience.unwrap_or(ms)));
        Ok(Exec { command: command.clone(), args: args.clone(), timeout_ms })
    }
}

fn milliseconds(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(timeout_ms: Option<u64>) -> ExecPlan {
        ExecPlan {
            id: "x".parse().unwrap(),
            start: ExecStart { command: "a".into(), timeout_ms, ..ExecStart::default() },
            stdin: None,
            keep: 0,
            detach: false,
            follower: ExecFollower::Daemon,
            beyond_base: timeout_ms.map(|_| TIME_LIMIT).into_iter().collect(),
            patience: None,
        }
    }

    #[test]
    fn a_collected_program_has_a_time_limit_and_a_plain_agent_gets_the_callers_patience() {
        let millis = Duration::from_millis;
        let limits = |plan: ExecPlan| (plan.plain(true).unwrap().timeout_ms, plan.start.timeout_ms);
        assert_eq!(limits(plan(None)), (None, None));
        assert_eq!(limits(plan(None).collected(None)), (Some(600_000), Some(600_000)));
        assert_eq!(limits(plan(Some(50)).collected(Some(millis(7)))), (Some(7), Some(50)));
        assert_eq!(limits(plan(Some(5)).collected(Some(millis(7)))), (Some(5), Some(5)));
        assert_eq!(plan(None).collected(Some(millis(7))).plain(false).unwrap().timeout_ms, None);
    }

    #[test]
    fn a_call_may_take_longer_than_its_program() {
        assert_eq!(plan(Some(1_000)).longest_call(), Duration::from_millis(21_500));
        assert_eq!(plan(None).longest_call(), Duration::from_secs(24 * 60 * 60 + 20));
    }
}
