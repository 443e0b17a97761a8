//! `minionsctl wait --for STATE`: waits until one or several VMs are in a state.

use super::context::Context;
use super::ls;
use super::wait::{PAUSE, PollResult, WaitLimit, seen};
use crate::cli::{SelectorArgs, WaitGoal};
use crate::client::DaemonClient;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::VmName;
use minions_api::declaration::ConfigState;
use minions_api::vm::{Vm, VmState};
use serde_json::json;
use std::collections::BTreeMap;
use tokio::time::{Instant, sleep};

/// Pause between two lists, as a multiple of the time that a list takes.
const PAUSE_FACTOR: u32 = 4;

/// Number of VMs whose states are named at the time limit.
const NAMED: usize = 10;

/// Waits until all VMs that exist now and have these labels are in the state.
pub(super) async fn run_selected(
    context: &Context<'_>,
    client: &DaemonClient,
    labels: &SelectorArgs,
    goal: WaitGoal,
) -> Result<ExitStatus, Failure> {
    let vms = ls::selected(client, labels).await?.vms;
    // VMs that are gone are not selected any more.
    if vms.is_empty() && goal != WaitGoal::Gone {
        return Err(Failure::Usage("no VM to wait for: `minionsctl ls` lists the VMs"));
    }
    run(context, client, vms.into_iter().map(|vm| vm.name).collect(), goal).await
}

/// Waits until each of these VMs has been in the state. All are judged by one list in each round.
pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    vms: Vec<VmName>,
    goal: WaitGoal,
) -> Result<ExitStatus, Failure> {
    let limit = WaitLimit::of(context);
    let mut waiting: BTreeMap<VmName, String> =
        vms.into_iter().map(|name| (name, String::new())).collect();
    let mut reached: BTreeMap<VmName, String> = BTreeMap::new();
    loop {
        let asked = Instant::now();
        match ls::all(client).await {
            Ok(list) => {
                let vms: BTreeMap<_, _> = list.vms.iter().map(|vm| (&vm.name, vm)).collect();
                waiting.retain(|name, last| match judge(goal, name, vms.get(name).copied()) {
                    PollResult::Done(message) => {
                        reached.insert(name.clone(), message);
                        false
                    }
                    PollResult::Seen(seen) => {
                        *last = seen;
                        true
                    }
                });
            }
            // minionsd may be restarting.
            Err(failure) if failure.is_transient() => {
                waiting.values_mut().for_each(|last| *last = failure.to_string());
            }
            Err(failure) => return Err(failure),
        }
        if waiting.is_empty() {
            break;
        }
        // A list of thousands of VMs takes a while: minionsd has time for others.
        let pause = PAUSE.max(asked.elapsed() * PAUSE_FACTOR);
        if limit.is_over_after(pause) {
            let seen = waiting.values().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
            let more = waiting.len().saturating_sub(NAMED);
            let seen = if more > 0 { format!("{seen}; and {more} more") } else { seen };
            return Err(Failure::NotReached { goal: goal.as_str(), within: limit.within(), seen });
        }
        sleep(pause).await;
    }
    let (vms, messages): (Vec<_>, Vec<_>) = reached.into_iter().unzip();
    let value = match messages.as_slice() {
        [message] => json!({ "message": message }),
        messages => json!({ "vms": vms, "messages": messages }),
    };
    context.printer.result(&value, |_| {
        messages.iter().fold(Rows::new(), |rows, message| rows.row([message.clone()]))
    })?;
    Ok(ExitStatus::Success)
}

fn judge(goal: WaitGoal, name: &VmName, vm: Option<&Vm>) -> PollResult<String> {
    let done = || PollResult::Done(format!("{name} is {}", goal.as_str()));
    match (goal, vm) {
        (WaitGoal::Gone, None) => done(),
        (WaitGoal::Ready, Some(vm)) if vm.state == VmState::Ready => done(),
        (WaitGoal::Unreachable, Some(vm))
            if matches!(vm.state, VmState::Unreachable | VmState::Stale) =>
        {
            done()
        }
        (WaitGoal::Configured, Some(vm)) if vm.configured == Some(ConfigState::Applied) => done(),
        (WaitGoal::Configured, Some(vm)) => PollResult::Seen(configured(vm)),
        (WaitGoal::Gone | WaitGoal::Ready | WaitGoal::Unreachable, vm) => {
            PollResult::Seen(missing(name, vm))
        }
        (WaitGoal::Configured, None) => PollResult::Seen(missing(name, None)),
    }
}

/// Returns the state of a VM, which may be missing.
fn missing(name: &VmName, vm: Option<&Vm>) -> String {
    if vm.is_some() { seen(vm) } else { format!("no VM named {name}") }
}

impl WaitGoal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Ready => "ready",
            Self::Configured => "configured",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Returns the agreement of a VM with its declarations, and the reason.
fn configured(vm: &Vm) -> String {
    let Some(configured) = vm.configured else {
        return format!("{}, and nothing is declared for it", seen(Some(vm)));
    };
    let reason = vm.configuration.as_ref().and_then(|condition| condition.reason.as_ref());
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    match vm.state {
        VmState::Ready => format!("{} is {}{reason}", vm.name, configured.as_str()),
        _ => format!("{}; it is {}{reason}", seen(Some(vm)), configured.as_str()),
    }
}
