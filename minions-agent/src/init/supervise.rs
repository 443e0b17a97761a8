//! Runs the agent and reaps orphans until the end of the guest is requested.

use super::console::{console, report};
use super::power::{ShutdownAction, ShutdownSignals};
use super::reap::{ReapResult, reap};
use rustix::process::{Pid, WaitStatus};
use std::ffi::OsString;
use std::future::pending;
use std::process::Command;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Environment of the agent and of its programs.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("TERM", "linux"),
];

/// Shortest time between two starts of the agent, so that an agent that fails to start does not keep the guest busy. An
/// agent that ran longer is restarted at once.
const BETWEEN_STARTS: Duration = Duration::from_secs(1);

/// Program of the agent: the running one, even if its file was replaced or removed.
const AGENT: &str = "/proc/self/exe";

/// Runs the agent with `options`, restarting it whenever it ends, until the end of the guest is requested.
/// Returns the requested action.
pub(super) async fn run(options: &[OsString], mut signals: ShutdownSignals) -> ShutdownAction {
    let mut children = match signal(SignalKind::child()) {
        Ok(children) => children,
        Err(error) => {
            console(format_args!("wait for children: {error}"));
            return ShutdownAction::PowerOff;
        }
    };
    let mut earliest = Instant::now() + BETWEEN_STARTS;
    let mut agent = start(options);
    let mut again = agent.is_none().then_some(earliest);
    loop {
        tokio::select! {
            action = signals.asked() => return action,
            // One SIGCHLD may stand for many children.
            _ = children.recv() => while let ReapResult::Child(pid, status) = reap() {
                if Some(pid) == agent {
                    console(format_args!("the agent ended ({})", in_words(status)));
                    agent = None;
                    again = Some(earliest);
                }
            },
            () = at(again) => {
                earliest = Instant::now() + BETWEEN_STARTS;
                agent = start(options);
                again = agent.is_none().then_some(earliest);
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

/// Starts the agent and returns its PID. The handle is dropped: [`reap`] waits for the process.
fn start(options: &[OsString]) -> Option<Pid> {
    let started = Command::new(AGENT).args(options).envs(ENVIRONMENT).spawn();
    report("start the agent", started).map(|child| Pid::from_child(&child))
}

fn in_words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown reason".to_owned(),
    }
}
