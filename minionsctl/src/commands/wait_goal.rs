//! `minionsctl wait --for STATE`: waits until one or several VMs are in a state.

use super::context::Context;
use super::ls;
use super::wait::{PollResult, WaitLimit, seen, until};
use crate::cli::{SelectorArgs, WaitGoal};
use crate::client::DaemonClient;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use futures_util::future::join_all;
use minions_api::VmName;
use minions_api::declaration::ConfigState;
use minions_api::vm::{Vm, VmState};
use serde_json::json;

/// Waits until all VMs that exist now and have these labels are in the state.
pub(super) async fn run_selected(
    context: &Context<'_>,
    client: &DaemonClient,
    labels: &SelectorArgs,
    goal: WaitGoal,
) -> Result<ExitStatus, Failure> {
    let vms = ls::selected(client, labels).await?.vms;
    if vms.is_empty() {
        return Err(Failure::Usage("no VM to wait for: `minionsctl ls` lists the VMs"));
    }
    run(context, client, vms.into_iter().map(|vm| vm.name).collect(), goal).await
}

/// Waits until all of these VMs are in the state.
pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    mut vms: Vec<VmName>,
    goal: WaitGoal,
) -> Result<ExitStatus, Failure> {
    vms.sort();
    vms.dedup();
    let limit = WaitLimit::of(context);
    let waits =
        vms.iter().map(|name| until(client, name, limit, false, |vm| judge(goal, name, vm)));
    let ends = join_all(waits).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let missed: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).cloned().collect();
    if !missed.is_empty() {
        let seen = missed.join("; ");
        return Err(Failure::NotReached { goal: goal.as_str(), within: limit.within(), seen });
    }
    let messages: Vec<_> = ends.into_iter().flatten().collect();
    let value = match messages.as_slice() {
        [message] => json!({ "message": message }),
        messages => json!({ "vms": vms, "messages": messages }),
    };
    context.printer.result(&value, |_| {
        messages.iter().fold(Rows::new(), |rows, message| rows.row([message.clone()]))
    })?;
    Ok(ExitStatus::Success)
}

fn judge(goal: WaitGoal, name: &VmName, vm: Option<Vm>) -> PollResult<String> {
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
        (WaitGoal::Configured, Some(vm)) => PollResult::Seen(configured(&vm)),
        (WaitGoal::Gone | WaitGoal::Ready | WaitGoal::Unreachable, vm) => {
            PollResult::Seen(seen(vm.as_ref()))
        }
        (WaitGoal::Configured, None) => PollResult::Seen(seen(None)),
    }
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
