//! Files that could not be copied: one line each on standard error, and a bounded list for JSON.

use super::progress::CopyProgress;
use crate::output::Printer;
use minions_api::VmName;
use minions_api::files::FileFailure;
use minions_tree::FileError;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Largest number of messages that are kept.
const MAX_KEPT: usize = 100;

/// Failures of one copy. Threads of the copy report to it.
#[derive(Debug)]
pub(super) struct FailureLog {
    progress: CopyProgress,
    vm: Option<VmName>,
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    kept: Vec<String>,
    count: u64,
}

impl FailureLog {
    /// Creates an empty log. With `vm`, each line begins with the name of the VM.
    pub(super) fn new(progress: &CopyProgress, vm: Option<VmName>) -> Self {
        Self { progress: progress.clone(), vm, state: Mutex::default() }
    }

    /// Reports a file that could not be copied on this host.
    pub(super) fn local(&self, error: &FileError) {
        self.report(&error.to_string());
    }

    /// Reports files that could not be copied in a guest: `count` in total.
    pub(super) fn remote(&self, failures: &[FileFailure], count: u64) {
        for failure in failures {
            self.report(&failure.message);
        }
        let further = count.saturating_sub(failures.len() as u64);
        if further > 0 {
            self.print(&format!("{further} further files were left out in the guest"));
            self.state().count += further;
        }
    }

    /// Reports one failure.
    pub(super) fn report(&self, message: &str) {
        self.print(message);
        let mut state = self.state();
        state.count += 1;
        if state.kept.len() < MAX_KEPT {
            state.kept.push(message.to_owned());
        }
    }

    fn print(&self, message: &str) {
        self.progress.aside(|| match &self.vm {
            Some(vm) => Printer::remark_line(&format!("{vm}: {message}")),
            None => Printer::remark_line(message),
        });
    }

    /// Returns the number of failures, and the first messages.
    pub(super) fn result(&self) -> (u64, Vec<String>) {
        let state = self.state();
        (state.count, state.kept.clone())
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
