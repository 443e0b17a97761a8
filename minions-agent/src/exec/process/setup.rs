//! Description of a process to create.

use crate::exec::user::UserAccount;
use rustix::process::{Resource, Rlimit};
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Program to start, and the properties that its process gets before that.
#[derive(Debug)]
pub(in crate::exec) struct SpawnSetup {
    pub(in crate::exec) streams: ProgramStreams,
    pub(in crate::exec) image: ProgramImage,
    /// True if standard input is a terminal, which becomes the controlling one of the session.
    pub(in crate::exec) terminal: bool,
    pub(in crate::exec) rlimits: Vec<(Resource, Rlimit)>,
    pub(in crate::exec) account: Option<UserAccount>,
    pub(in crate::exec) cwd: CString,
    /// Nice value, if the agent has raised its own priority.
    pub(in crate::exec) nice: Option<i32>,
    /// True to reset the scheduling policy, because the agent has changed its own.
    pub(in crate::exec) default_policy: bool,
    /// `oom_score_adj`, if the agent has lowered its own: a program that uses all memory must be killed before
    /// the agent.
    pub(in crate::exec) oom_score_adj: Option<String>,
}

/// The program's ends of its streams: blocking, closed by exec, and none of them a standard stream of the agent.
#[derive(Debug)]
pub(in crate::exec) struct ProgramStreams {
    pub(in crate::exec) stdin: OwnedFd,
    pub(in crate::exec) stdout: OwnedFd,
    pub(in crate::exec) stderr: OwnedFd,
}

/// A program with its arguments and its environment.
#[derive(Debug)]
pub(in crate::exec) struct ProgramImage {
    /// Files that can be the program, in the order in which they are tried.
    pub(in crate::exec) paths: Vec<CString>,
    pub(in crate::exec) args: Vec<CString>,
    /// Variables, each as `NAME=VALUE`.
    pub(in crate::exec) env: Vec<CString>,
}
