//! Command on this host that runs while a guest is quiesced.

use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::SignalListeners;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use tokio::process::{Child, Command};

/// A program with its arguments.
pub(super) struct HostCommand {
    program: OsString,
    arguments: Vec<OsString>,
}

impl HostCommand {
    /// Returns the command, or `None` without words.
    pub(super) fn new(words: Vec<OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        Some(Self { program: words.next()?, arguments: words.collect() })
    }

    /// Returns the program's name for messages.
    pub(super) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// Runs the command to its end. It is in the process group of minionsctl, so a terminal sends it SIGINT and SIGQUIT
    /// itself; other signals are passed on. The second signal kills it.
    pub(super) async fn run(self, signals: &mut SignalListeners) -> Result<ExitStatus, Failure> {
        let failed = |source| Failure::HostCommand { program: self.name(), source };
        let mut child =
            Command::new(&self.program).args(&self.arguments).spawn().map_err(failed)?;
        let mut was_signalled = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.map_err(failed)?,
                number = signals.ending() => {
                    signal(&child, number, was_signalled);
                    was_signalled = true;
                }
            }
        };
        Ok(match status.signal() {
            Some(number) => ExitStatus::by_signal(number),
            None => status.code().map_or(ExitStatus::Ours, ExitStatus::remote),
        })
    }
}

fn signal(child: &Child, number: i32, kill: bool) {
    let signal = match Signal::from_named_raw(number) {
        _ if kill => Signal::KILL,
        None | Some(Signal::INT | Signal::QUIT) => return,
        Some(signal) => signal,
    };
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    if let Some(pid) = pid {
        // Fails if it has just ended.
        let _ = kill_process(pid, signal);
    }
}
