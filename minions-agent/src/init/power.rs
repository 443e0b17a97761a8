//! The end of the guest, and how PID 1 is asked for it.
//!
//! PID 1 takes the signals of busybox's init and of systemd, so that whoever knows either (a VMM's
//! button, `poweroff`, the agent) is understood:
//!
//! | signal | from | asks for |
//! |---|---|---|
//! | USR2, PWR, RTMIN+4 (38) | busybox, the kernel on a power failure, systemd | power off |
//! | TERM, INT, RTMIN+5 (39) | busybox, Ctrl-Alt-Del (Firecracker's button), systemd | reboot |
//! | USR1, RTMIN+3 (37) | busybox, systemd | halt |
//!
//! [`Action::signal`] is the one to send to PID 1 where it is this or busybox's.

use super::supervise::{Reaped, reap};
use super::{console, mounts};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};
use std::io;
use std::time::Duration;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// From TERM to KILL. The agent gives its programs less.
const GRACE: Duration = Duration::from_secs(10);

/// For killed processes to be gone.
const REAP: Duration = Duration::from_secs(2);

/// How often to look whether they are.
const LOOK: Duration = Duration::from_millis(10);

/// How a guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The VM ends, where it has a power switch (ACPI); else it halts.
    PowerOff,
    /// The VM begins anew; a VMM that knows no reboot (Firecracker) ends it.
    Reboot,
    /// The processor stops, the VM stays.
    Halt,
}

/// By number: real-time signals have no name. glibc's RTMIN is 34.
const MEANINGS: [(i32, Action); 8] = [
    (libc::SIGUSR2, Action::PowerOff),
    (libc::SIGPWR, Action::PowerOff),
    (38, Action::PowerOff),
    (libc::SIGTERM, Action::Reboot),
    (libc::SIGINT, Action::Reboot),
    (39, Action::Reboot),
    (libc::SIGUSR1, Action::Halt),
    (37, Action::Halt),
];

impl Action {
    /// What asks this PID 1, or busybox's, for it.
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

/// The signals that ask for the end, taken.
#[derive(Debug)]
pub(super) struct Signals(mpsc::Receiver<Action>);

impl Signals {
    /// Inside a runtime. One that was taken is never lost; of several at once the first counts.
    pub(super) fn take() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(1);
        for (number, action) in MEANINGS {
            let mut signal = unix::signal(SignalKind::from_raw(number))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    // Full: the end was asked for already.
                    let _ = sender.try_send(action);
                }
            });
        }
        Ok(Self(receiver))
    }

    /// Cancel safe.
    pub(super) async fn asked(&mut self) -> Action {
        match self.0.recv().await {
            Some(action) => action,
            // The senders live as long as the runtime.
            None => std::future::pending().await,
        }
    }
}

/// Ctrl-Alt-Del, a VMM's button for some, becomes a signal to us instead of a reset without a sync.
pub(super) fn no_ctrl_alt_del() {
    super::report("take Ctrl-Alt-Del", reboot(RebootCommand::CadOff));
}

/// Ends all processes, leaves the file systems clean, and is gone.
pub(super) async fn finish(action: Action) -> ! {
    console(format_args!("{action:?} was asked for"));
    signal_all(Signal::TERM);
    // What is stopped can't even end.
    signal_all(Signal::CONT);
    if !all_gone_within(GRACE).await {
        console("some processes are killed");
        signal_all(Signal::KILL);
        all_gone_within(REAP).await;
    }
    mounts::unmount_all();
    loop {
        super::report("ask the kernel", reboot(action.command()));
        sleep(GRACE).await;
    }
}

/// To everybody but us: that is what the kernel takes PID 1's number for here.
fn signal_all(signal: Signal) {
    // An error means that there is nobody.
    let _ = kill_process_group(Pid::INIT, signal);
}

/// Every process is our child once its own parent has ended.
async fn all_gone_within(limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        match reap() {
            Reaped::One(..) => {}
            Reaped::NoChildren => return true,
            Reaped::Nobody if Instant::now() >= deadline => return false,
            Reaped::Nobody => sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_action_sends_is_what_pid_1_takes_for_it() {
        for action in [Action::PowerOff, Action::Reboot, Action::Halt] {
            let sent = action.signal().as_raw();
            assert!(MEANINGS.contains(&(sent, action)), "{action:?}");
        }
    }
}
