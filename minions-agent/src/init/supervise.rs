//! The guest's life: the agent runs, orphans are reaped, until somebody asks for the end.

use super::power::{Action, Signals};
use super::{ENVIRONMENT, console};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use std::ffi::OsString;
use std::future::pending;
use std::process::Command;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Before the agent is started again, so that one that can't start doesn't keep the guest busy.
const PAUSE: Duration = Duration::from_secs(1);

/// The agent is always this very program, whatever has become of its file.
const AGENT: &str = "/proc/self/exe";

/// What one look for ended children found.
#[derive(Debug)]
pub(super) enum Reaped {
    One(Pid, WaitStatus),
    /// There are children, and they run.
    Nobody,
    NoChildren,
}

/// Takes one child that has ended.
pub(super) fn reap() -> Reaped {
    match wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => Reaped::One(pid, status),
        Ok(None) | Err(Errno::INTR) => Reaped::Nobody,
        Err(_) => Reaped::NoChildren,
    }
}

/// Until somebody asks for the end, and how.
pub(super) async fn run(options: &[OsString], mut signals: Signals) -> Action {
    let mut children = match signal(SignalKind::child()) {
        Ok(children) => children,
        Err(error) => {
            console(format_args!("wait for children: {error}"));
            return Action::PowerOff;
        }
    };
    let mut agent = start(options);
    let mut again = agent.is_none().then(|| Instant::now() + PAUSE);
    loop {
        tokio::select! {
            action = signals.asked() => return action,
            // One signal may stand for many children.
            _ = children.recv() => while let Reaped::One(pid, status) = reap() {
                if Some(pid) == agent {
                    console(format_args!("the agent ended ({})", in_words(status)));
                    agent = None;
                    again = Some(Instant::now() + PAUSE);
                }
            },
            () = at(again) => {
                agent = start(options);
                again = agent.is_none().then(|| Instant::now() + PAUSE);
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Its exit is ours to wait for, by number: the handle is let go.
fn start(options: &[OsString]) -> Option<Pid> {
    let started = Command::new(AGENT).args(options).envs(ENVIRONMENT).spawn();
    super::report("start the agent", started).map(|child| Pid::from_child(&child))
}

fn in_words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no reason given".to_owned(),
    }
}
