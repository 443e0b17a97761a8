//! `minionsctl ls`: lists the VMs and their states.

use super::context::Context;
use super::declared::path_segment;
use crate::cli;
use crate::client::DaemonClient;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::vm::{Vm, VmList};

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    args: &cli::SelectorArgs,
) -> Result<ExitStatus, Failure> {
    let vms: VmList = client.get(&path(args), Context::registry()).await?;
    context.printer.result(&vms, |list| {
        let table = Rows::with_header(&["NAME", "STATE", "SINCE", "HOSTNAME", "AGENT", "REASON"]);
        list.vms.iter().fold(table, |table, vm| table.row(row(vm)))
    })?;
    Ok(ExitStatus::Success)
}

/// Returns the path of the VMs that the selector selects.
fn path(args: &cli::SelectorArgs) -> String {
    match &args.selector {
        None => "/vms".to_owned(),
        Some(selector) => format!("/vms?label={}", path_segment(&selector.to_string())),
    }
}

fn row(vm: &Vm) -> [String; 6] {
    [
        vm.name.to_string(),
        vm.state.as_str().into(),
        vm.since.to_string(),
        vm.hostname.clone().unwrap_or_else(|| "-".into()),
        agent(vm),
        vm.reason.as_ref().map_or_else(|| "-".into(), |reason| reason.message.clone()),
    ]
}

/// Returns the agent's version; `base` for an agent that supports only the base protocol.
pub(super) fn agent(vm: &Vm) -> String {
    match (&vm.agent, vm.last_seen) {
        (Some(agent), _) => agent.version.clone(),
        (None, Some(_)) => "base".into(),
        (None, None) => "-".into(),
    }
}
