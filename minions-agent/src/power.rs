//! Power-off and reboot of the guest.
//!
//! ```text
//!  request ─▶ ask the init ──────── the init ends the guest
//!              │ no init to ask, it takes too long, or force
//!              ▼
//!           TERM to all processes ─ 2 s ─▶ KILL ─▶ sync ─▶ reboot(2)
//! ```
//!
//! systemd(1) is asked with its real-time signals. busybox's init and the agent's `--init` are asked with
//! busybox's signals (SIGUSR2 for power-off, SIGTERM for reboot), if PID 1 catches the signal: the kernel
//! drops signals that PID 1 does not catch. For any other init, the guest's program `poweroff` or `reboot`
//! is run.

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

/// Signals of systemd(1): `SIGRTMIN+4` starts `poweroff.target`, `SIGRTMIN+5` starts `reboot.target`.
const SYSTEMD_POWEROFF: &str = "RTMIN+4";
const SYSTEMD_REBOOT: &str = "RTMIN+5";

/// Directory that exists if systemd is the init (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// Time for an init to stop its services: systemd gives each of them 90 s.
const INIT_PATIENCE: Duration = Duration::from_mins(5);

/// Time for programs to end after SIGTERM, where no init stops them.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// Time for the reply to leave the guest before the guest ends.
const FOR_THE_REPLY: Duration = Duration::from_millis(200);

/// Way to end a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShutdownMethod {
    /// Signal to send to PID 1.
    Signal(Signal),
    /// The guest's program `poweroff` or `reboot`.
    Program(&'static str),
    /// reboot(2), called by the agent.
    Kernel,
}

impl ShutdownMethod {
    /// Chooses the way for this guest.
    pub(crate) fn find(action: PowerAction, force: bool) -> Self {
        if force {
            return Self::Kernel;
        }
        if Path::new(SYSTEMD).is_dir() {
            return Self::Signal(by_systemd(action));
        }
        let signal = by_busybox(action);
        let first = FirstProcess::read();
        if first.uses_busybox_signals() {
            return if first.catches(signal) { Self::Signal(signal) } else { Self::Kernel };
        }
        Self::Program(program(action))
    }

    /// Returns the last words of the reply "the guest is being powered off …".
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Signal(_) => "by its init",
            Self::Program(_) => "by its own program",
            Self::Kernel => "by the kernel",
        }
    }
}

/// Ends the guest. Returns only if that failed.
pub(crate) async fn end(action: PowerAction, way: ShutdownMethod) {
    sleep(FOR_THE_REPLY).await;
    let asked = match way {
        ShutdownMethod::Signal(signal) => kill_process(Pid::INIT, signal).map_err(io::Error::from),
        ShutdownMethod::Program(program) => run(program).await,
        ShutdownMethod::Kernel => Err(io::ErrorKind::Unsupported.into()),
    };
    match asked {
        Ok(()) => {
            sleep(INIT_PATIENCE).await;
            tracing::warn!("the guest's init did not end the guest in time; using reboot(2)");
        }
        Err(error) if way == ShutdownMethod::Kernel => {
            tracing::debug!(%error, "not asking the init")
        }
        Err(error) => {
            tracing::warn!(%error, "failed to ask the guest's init; using reboot(2)");
        }
    }
    end_by_kernel(action).await;
}

async fn end_by_kernel(action: PowerAction) {
    signal_all_others(Signal::TERM);
    sleep(TERM_GRACE).await;
    signal_all_others(Signal::KILL);
    rustix::fs::sync();
    let command = match action {
        PowerAction::Poweroff => RebootCommand::PowerOff,
        PowerAction::Reboot => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        tracing::error!(%error, "reboot(2) failed; the guest keeps running");
    }
}

/// Runs the guest's own program; it ends successfully once it has asked the init.
async fn run(program: &'static str) -> io::Result<()> {
    let run = move || {
        Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    let status = crate::task::spawn_blocking(run).await.map_err(io::Error::other)??;
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

/// Properties of PID 1.
#[derive(Debug, Default)]
struct FirstProcess {
    /// File name of its program.
    program: String,
    /// True if it runs the same program as this process (`--init`), which may have any file name.
    is_ours: bool,
    /// Caught signals, `SigCgt` of /proc/1/status: bit n - 1 for signal n.
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

    fn uses_busybox_signals(&self) -> bool {
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

/// Sends `signal` to all processes except PID 1 and this one. Kernel threads ignore it.
fn signal_all_others(signal: Signal) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let us = rustix::process::getpid();
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter_map(Pid::from_raw) {
        if pid != us && pid != Pid::INIT {
            // The process may have ended in the meantime.
            let _ = kill_process(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caught_signals_of_pid_1_are_read_from_its_mask() {
        let first = FirstProcess {
            program: "busybox".into(),
            is_ours: false,
            caught: caught("Name:\tinit\nSigCgt:\t0000000000000800\n"),
        };
        assert!(first.uses_busybox_signals());
        // SIGUSR2 is 12.
        assert!(first.catches(Signal::USR2) && !first.catches(Signal::TERM));
        assert_eq!(caught("Name:\tinit\n"), 0);
    }

    #[test]
    fn systemd_is_asked_with_its_real_time_signals() {
        // signal(7): SIGRTMIN is 34 in glibc.
        assert_eq!(by_systemd(PowerAction::Poweroff).as_raw(), 38);
        assert_eq!(by_systemd(PowerAction::Reboot).as_raw(), 39);
    }

    #[test]
    fn force_bypasses_every_init() {
        assert_eq!(ShutdownMethod::find(PowerAction::Reboot, true), ShutdownMethod::Kernel);
    }
}
