//! `minionsctl wait VM ID`: until a program has ended.

use super::Context;
use crate::client::{Client, Patience, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::VmName;
use minions_api::exec::{ExecInfo, ExecState, Outcome, SignalReason};
use minions_proto::message::{ExecId, Signal};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// One look, if nothing happens. Short enough for whatever is between us and minionsd.
const LOOK: Duration = Duration::from_secs(30);

/// How long minionsd or the VM may be away meanwhile, and how often to look for it.
const ABSENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(
    context: &Context<'_>,
    client: &Client,
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
        match client.get::<ExecInfo>(&path, Patience { asked: None, at_most: look }).await {
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
    // One that ended without a code is a broken peer's.
    Ok(info.exit_code.map_or(ExitStatus::Ours, ExitStatus::remote))
}

/// How it ended, for people.
pub(super) fn end(info: &ExecInfo) -> String {
    let id = &info.id;
    match &info.outcome {
        None => format!("{id} still ran"),
        Some(Outcome::Exited { code }) => format!("{id} ended with {code}"),
        Some(Outcome::Signaled { reason: Some(SignalReason::Oom), .. }) => {
            format!("{id} was ended by the guest's kernel: out of memory")
        }
        Some(Outcome::Signaled { signal, .. }) => match Signal::from_number(*signal) {
            Some(name) => format!("{id} was ended by signal {signal} ({name})"),
            None => format!("{id} was ended by signal {signal}"),
        },
        Some(Outcome::TimedOut) => format!("{id} was ended because its time was up"),
        Some(Outcome::FailedToStart { .. }) => format!("{id} never ran"),
        Some(Outcome::Lost { reason }) => format!("{id} is lost: {reason}"),
    }
}
