//! Keeps the agent alive and responsive while its programs run.
//!
//! Programs may use all memory and all processors. The agent is the means to end them, so it takes
//! precedence, no matter what started it:
//!
//! | of the agent | value | programs get |
//! |---|---|---|
//! | `oom_score_adj` | -900: almost anything else is killed first | what the agent was started with, at least 0 |
//! | nice value, of each thread | -20 | what the agent was started with |
//! | scheduling policy, of each thread | `SCHED_BATCH`: no program is interrupted for a few bytes | the default policy |
//! | control group, in a guest | one of its own with `cpu.weight` 10000 and `memory.min` | one each, with the defaults |
//!
//! Each of these needs privileges, or kernel files that may be missing. A failure is logged once and does
//! not prevent the agent from starting.
//!
//! # Layout
//!
//! * [`inherited`]: resets state inherited from the agent's parent.
//! * `leaf`: the agent's control group.
//! * `policy`: the scheduling policy.

pub mod inherited;
mod leaf;
pub(crate) mod policy;

use rustix::process::{getpriority_process, setpriority_process};
use std::fs;
use std::io;

/// The agent's own `oom_score_adj`. Not -1000, which would exempt it completely: an agent that uses up all
/// memory must be killed and restarted.
const OOM_SCORE_ADJ: i32 = -900;

/// The highest priority of ordinary scheduling (setpriority(2)).
const NICE: i32 = -20;

/// Priority and OOM score of programs, instead of the agent's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgramDefaults {
    /// Nice value; `None`: the agent's own.
    pub nice: Option<i32>,
    /// `oom_score_adj`; `None`: the agent's own.
    pub oom_score_adj: Option<i32>,
    /// The default scheduling policy, where the agent has left it; `false`: the agent's own.
    pub default_policy: bool,
}

/// Result of [`raise`].
#[derive(Debug, Default)]
pub struct ProtectionReport {
    /// Values for the agent's programs.
    pub programs: ProgramDefaults,
    /// Description of each step that failed.
    pub failures: Vec<String>,
}

/// Protects this process. Must be called while the process has only one thread: later threads inherit priority
/// and control group.
///
/// `is_of_guest`: the agent belongs to a guest and may change the machine's control groups.
#[must_use]
pub fn raise(is_of_guest: bool) -> ProtectionReport {
    let mut protection = ProtectionReport::default();
    let mut attempt = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            protection.failures.push(format!("{what}: {error}"));
        }
    };
    let oom_score_adj = oom_score_adj().ok();
    attempt("set oom_score_adj to -900", spare_from_oom_killer());
    let nice = getpriority_process(None).ok();
    attempt("set the nice value to -20", setpriority_process(None, NICE).map_err(Into::into));
    let batch = policy::set_batch();
    let default_policy = matches!(batch, Ok(true));
    attempt("set the scheduling policy to SCHED_BATCH", batch.map(drop));
    if is_of_guest {
        attempt("set the session's nice value to -20", raise_autogroup());
        attempt("enter a control group of its own", leaf::enter());
    }
    protection.programs = ProgramDefaults {
        nice,
        // A negative score is set by a unit for the agent, not for the agent's programs.
        oom_score_adj: oom_score_adj.map(|score| score.max(0)),
        default_policy,
    };
    protection
}

/// Makes the kernel kill almost any other process first when memory runs out.
///
/// # Errors
///
/// Fails without the privilege, or without `/proc`.
pub fn spare_from_oom_killer() -> io::Result<()> {
    if oom_score_adj()? > OOM_SCORE_ADJ {
        fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ.to_string())?;
    }
    Ok(())
}

fn oom_score_adj() -> io::Result<i32> {
    let text = fs::read_to_string("/proc/self/oom_score_adj")?;
    text.trim_end().parse().map_err(io::Error::other)
}

/// Raises the nice value of the agent's session. With autogroup scheduling (sched(7)), the nice value of a
/// process only counts within its session.
fn raise_autogroup() -> io::Result<()> {
    match fs::write("/proc/self/autogroup", NICE.to_string()) {
        // No autogroup scheduling, or the session of PID 1, which has no nice value of its own.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) =>
        {
            Ok(())
        }
        written => written,
    }
}
