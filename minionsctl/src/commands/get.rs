//! `minionsctl get VM`.

use super::{Context, ls};
use crate::client::{Client, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::VmName;
use minions_api::vm::Vm;

pub(super) async fn run(
    context: &Context<'_>,
    client: &Client,
    vm: &VmName,
) -> Result<ExitStatus, Failure> {
    let vm: Vm = client.get(&vm_path(vm, ""), Context::registry()).await?;
    context.printer.result(&vm, |vm| {
        let agent = vm.agent.as_ref();
        Rows::new()
            .value("Name:", &vm.name)
            .value("State:", vm.state.as_str())
            .value("Since:", vm.since)
            .optional("Reason:", vm.reason.as_ref().map(|reason| &reason.message))
            .value("Socket:", &vm.socket)
            .optional("Hostname:", vm.hostname.as_ref())
            .value("Agent:", ls::agent(vm))
            .optional("Protocol:", agent.map(|agent| agent.protocol))
            .optional("Boot id:", agent.map(|agent| &agent.boot_id))
            .optional("Instance id:", agent.map(|agent| &agent.instance_id))
            .optional("Last seen:", vm.last_seen)
            .value("Failed probes:", vm.failed_probes)
            .value(
                "Connections:",
                format!(
                    "{} idle, {} in use, at most {}",
                    vm.pool.idle, vm.pool.in_use, vm.pool.limit
                ),
            )
    })?;
    Ok(ExitStatus::Success)
}
