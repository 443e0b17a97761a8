//! `minionsctl wait VM ID`: waits until the program has ended.

use super::context::Context;
use crate::client::{CallDeadlines, DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::VmName;
use minions_api::exec::{ExecInfo, ExecState, Outcome, SignalReason};
use minions_proto::message::{ExecId, Signal};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest time of one request. Shorter than the idle timeouts of usual proxies.
const LOOK: Duration = Duration::from_secs(30);

/// Longest time for which requests may fail because minionsd or the VM is unavailable.
const ABSENCE: Duration = Duration::from_secs(60);

/// Pause after a failed request.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: &VmName,
    id: &ExecId,
) -> Result<ExitStatus, Failure> {
    let deadline = context.timeout.map(|limit| Instant::now() + limit);
    let mut missed: Option<Instant> = None;
    let mut seen = false;
    loop {
        let left = deadline.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()));
        let look = LOOK.min(left);
        let path = vm_path(vm, &format!("/execs/{id}?wait_ms={}", look.as_millis()));
        match client.get::<ExecInfo>(&path, CallDeadlines { asked: None, at_most: look }).await {
            Ok(info) if info.state != ExecState::Running => return ended(context, &info),
            Ok(_) if left.is_zero() => return Err(Failure::StillRuns(id.to_string())),
            Ok(_) => (seen, missed) = (true, None),
            Err(failure) => {
                let since = *missed.get_or_insert_with(Instant::now);
                if !seen || !failure.is_transient() || since.elapsed() > ABSENCE || left.is_zero() {
                    return Err(failure);
                }
                sleep(PAUSE).await;
            }
        }
    }
}

fn ended(context: &Context<'_>, info: &ExecInfo) -> Result<ExitStatus, Failure> {
    context.printer.result(info, |info| Rows::new().row([end(info)]))?;
    // Only a broken peer reports an end without an exit code.
    Ok(info.exit_code.map_or(ExitStatus::Ours, ExitStatus::remote))
}

/// Describes the end of a program, for people.
pub(super) fn end(info: &ExecInfo) -> String {
    let id = &info.id;
    match &info.outcome {
        None => format!("{id} was still running"),
        Some(Outcome::Exited { code }) => format!("{id} ended with {code}"),
        Some(Outcome::Signaled { reason: Some(SignalReason::Oom), .. }) => {
            format!("{id} was ended by the guest's kernel: out of memory")
        }
        Some(Outcome::Signaled { signal, .. }) => match Signal::from_number(*signal) {
            Some(name) => format!("{id} was ended by signal {signal} ({name})"),
            None => format!("{id} was ended by signal {signal}"),
        },
        Some(Outcome::TimedOut) => format!("{id} reached its time limit"),
        Some(Outcome::FailedToStart { .. }) => format!("{id} could not be started"),
        Some(Outcome::Lost { reason }) => format!("{id} is lost: {reason}"),
    }
}
