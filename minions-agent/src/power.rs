//! The guest's end.
//!
//! ```text
//!  asked ─▶ told to the init ──────── it ends the guest
//!              │ there is none to tell, it takes too long, or force
//!              ▼
//!           TERM to everybody ─ 2 s ─▶ KILL ─▶ sync ─▶ reboot(2)
//! ```
//!
//! An init is told in its own way: systemd(1) by its real-time signals, the others by busybox's
//! convention (SIGUSR2 ends, SIGTERM starts anew), and only if it catches that signal: the kernel
//! drops what a first process doesn't catch. Where PID 1 does neither, the program `poweroff` or
//! `reboot` of the guest knows how.

use crate::exec::raw_signal;
use minions_proto::message::{PowerAction, Signal as Named};
use rustix::process::{Pid, Signal, kill_process};
use rustix::system::{RebootCommand, reboot};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::sleep;

/// What systemd documents for being told by a signal: `SIGRTMIN+4` is `poweroff.target`, `+5`
/// `reboot.target`.
const SYSTEMD_POWEROFF: &str = "RTMIN+4";
const SYSTEMD_REBOOT: &str = "RTMIN+5";

/// There if systemd is the init (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// For an init to stop its services: systemd gives each 90 s.
const INIT_PATIENCE: Duration = Duration::from_mins(5);

/// For programs to end by themselves where there is no init to see to it.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// For the reply to leave the guest before the guest ends.
const FOR_THE_REPLY: Duration = Duration::from_millis(200);

/// How a guest is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The first process takes this signal for it.
    Signal(Signal),
    /// The guest's own program for it.
    Program(&'static str),
    /// The kernel, by ourselves.
    Kernel,
}

impl Way {
    /// For this guest.
    pub(crate) fn find(action: PowerAction, force: bool) -> Self {
        if force {
            return Self::Kernel;
        }
        if Path::new(SYSTEMD).is_dir() {
            return Self::Signal(by_systemd(action));
        }
        let signal = by_busybox(action);
        let first = FirstProcess::read();
        if first.keeps_to_busybox() {
            return if first.catches(signal) { Self::Signal(signal) } else { Self::Kernel };
        }
        Self::Program(program(action))
    }

    /// As the end of "the guest …".
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Signal(_) => "by its init",
            Self::Program(_) => "by its own program",
            Self::Kernel => "by the kernel",
        }
    }
}

/// Ends the guest. Returns only if that failed.
pub(crate) async fn end(action: PowerAction, way: Way) {
    sleep(FOR_THE_REPLY).await;
    let told = match way {
        Way::Signal(signal) => kill_process(Pid::INIT, signal).map_err(io::Error::from),
        Way::Program(program) => run(program).await,
        Way::Kernel => Err(io::ErrorKind::Unsupported.into()),
    };
    match told {
        Ok(()) => {
            sleep(INIT_PATIENCE).await;
            tracing::warn!("the guest's init did not end it; ending it by the kernel");
        }
        Err(error) if way == Way::Kernel => tracing::debug!(%error, "without the init"),
        Err(error) => tracing::warn!(%error, "the guest's init can't be told"),
    }
    end_by_kernel(action).await;
}

async fn end_by_kernel(action: PowerAction) {
    signal_everybody_else(Signal::TERM);
    sleep(TERM_GRACE).await;
    signal_everybody_else(Signal::KILL);
    rustix::fs::sync();
    let command = match action {
        PowerAction::Poweroff => RebootCommand::PowerOff,
        PowerAction::Reboot => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        tracing::error!(%error, "the kernel doesn't end the guest");
    }
}

/// Starts the guest's own program and waits for it to say that it has begun.
async fn run(program: &'static str) -> io::Result<()> {
    let run = move || {
        Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    let status = tokio::task::spawn_blocking(run).await.map_err(io::Error::other)??;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program}: {status}"))) }
}

fn by_systemd(action: PowerAction) -> Signal {
    let name = match action {
        PowerAction::Poweroff => SYSTEMD_POWEROFF,
        PowerAction::Reboot => SYSTEMD_REBOOT,
    };
    raw_signal(name.parse().unwrap_or(Named::TERM))
}

fn by_busybox(action: PowerAction) -> Signal {
    match action {
        PowerAction::Poweroff => Signal::USR2,
        PowerAction::Reboot => Signal::TERM,
    }
}

fn program(action: PowerAction) -> &'static str {
    match action {
        PowerAction::Poweroff => "poweroff",
        PowerAction::Reboot => "reboot",
    }
}

/// What can be told of PID 1.
#[derive(Debug, Default)]
struct FirstProcess {
    /// Its program's file name.
    program: String,
    /// Whether it is this very program (`--init`), which may be named anything.
    is_ours: bool,
    /// `SigCgt` of /proc/1/status: bit n - 1 for signal n.
    caught: u64,
}

impl FirstProcess {
    fn read() -> Self {
        let program = fs::read_link("/proc/1/exe").ok();
        let is_ours = program.is_some() && program == fs::read_link("/proc/self/exe").ok();
        let program = program.as_deref().and_then(Path::file_name).unwrap_or_default();
        let status = fs::read_to_string("/proc/1/status").unwrap_or_default();
        let program = program.to_string_lossy().into_owned();
        Self { program, is_ours, caught: caught(&status) }
    }

    fn keeps_to_busybox(&self) -> bool {
        self.program == "busybox" || self.is_ours
    }

    fn catches(&self, signal: Signal) -> bool {
        self.caught & (1 << (signal.as_raw() - 1)) != 0
    }
}

fn caught(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// All processes but the first and this one. Kernel threads take no notice.
fn signal_everybody_else(signal: Signal) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let us = rustix::process::getpid();
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter_map(Pid::from_raw) {
        if pid != us && pid != Pid::INIT {
            // It may have ended.
            let _ = kill_process(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_process_catches_is_read_from_its_mask() {
        let first = FirstProcess {
            program: "busybox".into(),
            is_ours: false,
            caught: caught("Name:\tinit\nSigCgt:\t0000000000000800\n"),
        };
        assert!(first.keeps_to_busybox());
        // SIGUSR2 is 12.
        assert!(first.catches(Signal::USR2) && !first.catches(Signal::TERM));
        assert_eq!(caught("Name:\tinit\n"), 0);
    }

    #[test]
    fn systemd_is_told_by_its_real_time_signals() {
        // signal(7): a C library's SIGRTMIN is 34.
        assert_eq!(by_systemd(PowerAction::Poweroff).as_raw(), 38);
        assert_eq!(by_systemd(PowerAction::Reboot).as_raw(), 39);
    }

    #[test]
    fn force_leaves_every_init_out() {
        assert_eq!(Way::find(PowerAction::Reboot, true), Way::Kernel);
    }
}
