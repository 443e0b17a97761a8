//! What keeps the agent alive and answering beside its programs.
//!
//! Programs may eat all memory and all processors. The agent is the way to end them, so it comes first, no
//! matter what started it:
//!
//! | of the agent | value | programs get |
//! |---|---|---|
//! | `oom_score_adj` | -900: almost anything else is killed first | what the agent was started with, at least 0 |
//! | nice value, of each thread | -20 | what the agent was started with |
//! | control group, in a guest | one of its own with `cpu.weight` 10000 and `memory.min` | one each, with the defaults |
//!
//! All of it takes privileges, or files of the kernel's that may be missing. What can't be done is said
//! in the log, once, and is no reason not to start.
//!
//! # Layout
//!
//! * [`inherited`]: what the agent's parent has left it, undone.
//! * `leaf`: the control group.

pub mod inherited;
mod leaf;

use rustix::process::{getpriority_process, setpriority_process};
use std::fs;
use std::io;

/// The agent's own `oom_score_adj`. Not -1000, which would exempt it altogether: an agent that eats all
/// memory must be killed and restarted.
const OOM_SCORE_ADJ: i32 = -900;

/// The highest priority of ordinary scheduling (setpriority(2)).
const NICE: i32 = -20;

/// What programs are started with, instead of the agent's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgramDefaults {
    /// Nice value; `None`: the agent's own.
    pub nice: Option<i32>,
    /// `oom_score_adj`; `None`: the agent's own.
    pub oom_score_adj: Option<i32>,
}

/// What was done, and what could not be.
#[derive(Debug, Default)]
pub struct Protection {
    /// For the agent's programs.
    pub programs: ProgramDefaults,
    /// One sentence for each failure.
    pub failures: Vec<String>,
}

/// Protects this process. To be called by the only thread: others inherit priority and control group.
///
/// `is_of_guest` is whether the machine's control groups are the agent's to arrange.
#[must_use]
pub fn raise(is_of_guest: bool) -> Protection {
    let mut protection = Protection::default();
    let mut attempt = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            protection.failures.push(format!("{what}: {error}"));
        }
    };
    let oom_score_adj = oom_score_adj().ok();
    attempt("set oom_score_adj to -900", spare_from_oom_killer());
    let nice = getpriority_process(None).ok();
    attempt("set the nice value to -20", setpriority_process(None, NICE).map_err(Into::into));
    if is_of_guest {
        attempt("set the session's nice value to -20", raise_autogroup());
        attempt("enter a control group of its own", leaf::enter());
    }
    protection.programs = ProgramDefaults {
        nice,
        // A unit may have set it for the agent; never for what the agent runs.
        oom_score_adj: oom_score_adj.map(|score| score.max(0)),
    };
    protection
}

/// Makes the kernel choose almost anything else when memory runs out.
///
/// # Errors
///
/// Without the privilege, or without a `/proc`.
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

/// Where the kernel schedules by sessions (sched(7), autogroup), nice values count inside one only.
fn raise_autogroup() -> io::Result<()> {
    match fs::write("/proc/self/autogroup", NICE.to_string()) {
        // The kernel doesn't, or the session is the first process's, which has no value of its own.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) =>
        {
            Ok(())
        }
        written => written,
    }
}
