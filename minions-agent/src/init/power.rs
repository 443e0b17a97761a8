//! Signals that request the end of the guest, and the shutdown sequence.
//!
//! PID 1 accepts the signals of busybox's init and of systemd, so that all usual senders (a VMM's button,
//! `poweroff`, the agent) work:
//!
//! | signal | from | request |
//! |---|---|---|
//! | USR2, PWR, RTMIN+4 (38) | busybox, the kernel on a power failure, systemd | power off |
//! | TERM, INT, RTMIN+5 (39) | busybox, Ctrl-Alt-Del (Firecracker's button), systemd | reboot |
//! | USR1, RTMIN+3 (37) | busybox, systemd | halt |
//!
//! [`ShutdownAction::signal`] is the signal for a PID 1 that is this program or busybox.

use super::console::{console, report};
use super::mounts;
use super::reap::{ReapResult, reap};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};
use std::io;
use std::time::Duration;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// Time from TERM to KILL. The agent gives its programs less.
const GRACE: Duration = Duration::from_secs(10);

/// Time to wait for killed processes to end.
const REAP: Duration = Duration::from_secs(2);

/// Interval between two checks for remaining processes.
const LOOK: Duration = Duration::from_millis(10);

/// Way in which a guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownAction {
    /// Power off. A VM without a power switch (ACPI) halts.
    PowerOff,
    /// Reboot. A VMM that does not support it (Firecracker) ends the VM.
    Reboot,
    /// Stop the processor; the VM remains.
    Halt,
}

/// Signal numbers and their actions. Numbers, because real-time signals have no names; glibc's RTMIN is 34.
const MEANINGS: [(i32, ShutdownAction); 8] = [
    (libc::SIGUSR2, ShutdownAction::PowerOff),
    (libc::SIGPWR, ShutdownAction::PowerOff),
    (38, ShutdownAction::PowerOff),
    (libc::SIGTERM, ShutdownAction::Reboot),
    (libc::SIGINT, ShutdownAction::Reboot),
    (39, ShutdownAction::Reboot),
    (libc::SIGUSR1, ShutdownAction::Halt),
    (37, ShutdownAction::Halt),
];

impl ShutdownAction {
    /// Returns the signal that requests this action from this PID 1 or from busybox's init.
    #[must_use]
    pub fn signal(self) -> Signal {
        match self {
            Self::PowerOff => Signal::USR2,
            Self::Reboot => Signal::TERM,
            Self::Halt => Signal::USR1,
        }
    }

    fn command(self) -> RebootCommand {
        match self {
            Self::PowerOff => RebootCommand::PowerOff,
            Self::Reboot => RebootCommand::Restart,
            Self::Halt => RebootCommand::Halt,
        }
    }
}

/// Handlers of the signals that request the end of the guest.
#[derive(Debug)]
pub(super) struct ShutdownSignals(mpsc::Receiver<ShutdownAction>);

impl ShutdownSignals {
    /// Installs the handlers. Must be called inside a runtime. No later signal is lost; the first of several
    /// counts.
    pub(super) fn take() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(1);
        for (number, action) in MEANINGS {
            let mut signal = unix::signal(SignalKind::from_raw(number))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    // Full: the end was requested already.
                    let _ = sender.try_send(action);
                }
            });
        }
        Ok(Self(receiver))
    }

    /// Waits for the first request. Cancel safe.
    pub(super) async fn asked(&mut self) -> ShutdownAction {
        match self.0.recv().await {
            Some(action) => action,
            // The senders live as long as the runtime.
            None => std::future::pending().await,
        }
    }
}

/// Makes Ctrl-Alt-Del, which some VMMs send as their button, a signal to PID 1 instead of a reset without a sync.
pub(super) fn no_ctrl_alt_del() {
    report("take Ctrl-Alt-Del", reboot(RebootCommand::CadOff));
}

/// Ends all processes, leaves the file systems clean, and ends the guest.
pub(super) async fn finish(action: ShutdownAction) -> ! {
    console(format_args!("{action:?} requested"));
    signal_all(Signal::TERM);
    // A stopped process cannot handle SIGTERM.
    signal_all(Signal::CONT);
    if !all_gone_within(GRACE).await {
        console("killing the remaining processes");
        signal_all(Signal::KILL);
        all_gone_within(REAP).await;
    }
    mounts::unmount_all();
    loop {
        report("reboot(2)", reboot(action.command()));
        sleep(GRACE).await;
    }
}

/// Sends `signal` to all processes except PID 1: the kernel gets kill(-1), which means exactly this.
fn signal_all(signal: Signal) {
    // Fails if there is no other process.
    let _ = kill_process_group(Pid::INIT, signal);
}

/// Reaps processes until none is left or `limit` has passed. Every process becomes a child of PID 1 once its own
/// parent has ended.
async fn all_gone_within(limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        match reap() {
            ReapResult::Child(..) => {}
            ReapResult::NoChildren => return true,
            ReapResult::AllRunning if Instant::now() >= deadline => return false,
            ReapResult::AllRunning => sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_1_maps_the_signal_of_an_action_to_that_action() {
        for action in [ShutdownAction::PowerOff, ShutdownAction::Reboot, ShutdownAction::Halt] {
            let sent = action.signal().as_raw();
            assert!(MEANINGS.contains(&(sent, action)), "{action:?}");
        }
    }
}
