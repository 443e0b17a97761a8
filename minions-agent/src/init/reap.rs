//! Reaping of ended children.

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

/// Result of a non-blocking wait for ended children.
#[derive(Debug)]
pub(super) enum ReapResult {
    Child(Pid, WaitStatus),
    /// There are children, and all of them run.
    AllRunning,
    NoChildren,
}

/// Reaps one child that has ended, if there is one.
pub(super) fn reap() -> ReapResult {
    match wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => ReapResult::Child(pid, status),
        Ok(None) | Err(Errno::INTR) => ReapResult::AllRunning,
        Err(_) => ReapResult::NoChildren,
    }
}
