//! `minionsctl thaw VM`: ends a quiesce.

use super::context::Context;
use crate::agent;
use crate::client::{CallDeadlines, DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use crate::target::Target;
use minions_api::VmName;
use minions_api::quiesce::{GuestThawed, HookRun};
use minions_proto::message::{Thaw, Thawed};
use reqwest::Method;
use std::time::Duration;

/// Longest time that minionsd takes: the thaw hooks run for at most a minute.
const AT_MOST: Duration = Duration::from_secs(75);

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    id: Option<String>,
) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(address) => {
            let patience = context.timeout.unwrap_or(AT_MOST);
            let answer = agent::call(address, &Thaw { id }, patience).await?;
            context.printer.json(&answer.json)?;
            report(context, &answer.reply.hooks);
        }
        Target::Vm(client, vm) => {
            let deadlines = CallDeadlines { asked: context.timeout, at_most: AT_MOST };
            let thawed = request(client, vm, id.as_deref(), deadlines).await?;
            context.printer.result(&thawed, rows)?;
            report(context, &thawed.hooks);
        }
    }
    Ok(ExitStatus::Success)
}

/// Result of a successful thaw.
pub(super) struct ThawedGuest {
    pub(super) hooks: Vec<HookRun>,
    /// True if an earlier request had ended the quiesce.
    pub(super) already: bool,
}

/// Ends the quiesce with this id.
pub(super) async fn thaw(target: &Target, id: &str) -> Result<ThawedGuest, Failure> {
    match target {
        Target::Agent(address) => {
            let call = Thaw { id: Some(id.to_owned()) };
            let Thawed { hooks, already, .. } = agent::call(address, &call, AT_MOST).await?.reply;
            Ok(ThawedGuest { hooks, already })
        }
        Target::Vm(client, vm) => {
            let deadlines = CallDeadlines { asked: None, at_most: AT_MOST };
            let thawed = request(client, vm, Some(id), deadlines).await?;
            let GuestThawed { hooks, already, .. } = thawed;
            Ok(ThawedGuest { hooks, already })
        }
    }
}

async fn request(
    client: &DaemonClient,
    vm: &VmName,
    id: Option<&str>,
    deadlines: CallDeadlines,
) -> Result<GuestThawed, Failure> {
    let query: Vec<_> = id.map(|id| ("id", id)).into_iter().collect();
    client.send_query(Method::POST, &vm_path(vm, "/thaw"), &query, deadlines).await
}

fn rows(thawed: &GuestThawed) -> Rows {
    let rows = Rows::new().value("Quiesced for:", format!("{} ms", thawed.quiesced_ms)).value(
        "Thawed:",
        if thawed.thawed.is_empty() { "-".into() } else { thawed.thawed.join(", ") },
    );
    thawed.hooks.iter().fold(rows, |rows, hook| rows.value("Hook:", in_words(hook)))
}

/// Describes a hook.
pub(super) fn in_words(hook: &HookRun) -> String {
    format!("{} {} after {} ms", hook.path, hook.detail, hook.duration_ms)
}

/// Prints the hooks that failed to standard error.
pub(super) fn report(context: &Context<'_>, hooks: &[HookRun]) {
    for hook in hooks.iter().filter(|hook| !hook.ok) {
        context.printer.remark(&format!("warning: the hook {} {}", hook.path, hook.detail));
    }
}
