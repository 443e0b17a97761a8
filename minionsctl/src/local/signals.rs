//! Signals to minionsctl.

use crate::failure::Failure;
use std::future::pending;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that end minionsctl.
const ENDING: [SignalKind; 4] =
    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];

/// Listeners for signals. Other signals keep their default action.
#[derive(Debug)]
pub(crate) struct SignalListeners {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
    quit: Option<Signal>,
    window: Option<Signal>,
}

/// Received signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaughtSignal {
    /// A signal that ends minionsctl, by number.
    Ending(i32),
    /// SIGWINCH: the size of the terminal has changed.
    Window,
}

impl SignalListeners {
    /// Starts listening, except for signals that were ignored at the start (`nohup`, a shell's background jobs).
    pub(crate) fn listen(terminal: bool) -> Result<Self, Failure> {
        let ignored = ignored();
        let listen = |kind: SignalKind| {
            let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or(0);
            let wanted = ignored.checked_shr(bit).is_none_or(|mask| mask & 1 == 0);
            wanted.then(|| signal(kind)).transpose().map_err(Failure::Runtime)
        };
        let [interrupt, terminate, hangup, quit] = ENDING.map(listen);
        let window = terminal.then(|| signal(SignalKind::window_change())).transpose();
        Ok(Self {
            interrupt: interrupt?,
            terminate: terminate?,
            hangup: hangup?,
            quit: quit?,
            window: window.map_err(Failure::Runtime)?,
        })
    }

    /// Waits for the next signal that ends minionsctl, and returns its number. Cancel safe.
    pub(crate) async fn ending(&mut self) -> i32 {
        loop {
            if let CaughtSignal::Ending(number) = self.next().await {
                return number;
            }
        }
    }

    /// Waits for the next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> CaughtSignal {
        let [interrupt, terminate, hangup, quit] = ENDING.map(|kind| kind.as_raw_value());
        tokio::select! {
            () = caught(&mut self.interrupt) => CaughtSignal::Ending(interrupt),
            () = caught(&mut self.terminate) => CaughtSignal::Ending(terminate),
            () = caught(&mut self.hangup) => CaughtSignal::Ending(hangup),
            () = caught(&mut self.quit) => CaughtSignal::Ending(quit),
            () = caught(&mut self.window) => CaughtSignal::Window,
        }
    }
}

async fn caught(signal: &mut Option<Signal>) {
    let caught = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if caught.is_none() {
        pending().await
    }
}

/// Returns the mask of ignored signals, with signal 1 in bit 0 (proc(5)). A listener for an ignored signal would make
/// it take effect.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
