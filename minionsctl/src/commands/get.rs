//! `minionsctl get VM`: prints what minionsd knows about a VM.

use super::context::Context;
use super::ls;
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::VmName;
use minions_api::declaration::ConfigState;
use minions_api::restore::RestoreReport;
use minions_api::vm::{BootTimeline, Vm, Vmm};

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: &VmName,
) -> Result<ExitStatus, Failure> {
    let vm: Vm = client.get(&vm_path(vm, ""), Context::registry()).await?;
    context.printer.result(&vm, |vm| {
        let agent = vm.agent.as_ref();
        Rows::new()
            .value("Name:", &vm.name)
            .value("State:", vm.state.as_str())
            .value("Since:", vm.since)
            .value("Cause:", vm.cause.as_str())
            .optional("Reason:", vm.reason.as_ref().map(|reason| &reason.message))
            .optional("Configured:", vm.configured.map(|one| configured(vm, one)))
            .optional("Labels:", ls::labels(vm))
            .value("Socket:", &vm.socket)
            .value("Agent port:", vm.agent_port)
            .optional("Hostname:", vm.hostname.as_ref())
            .value("Agent:", ls::agent(vm))
            .optional("Protocol:", agent.map(|agent| agent.protocol))
            .optional("Boot id:", agent.map(|agent| &agent.boot_id))
            .optional("Instance id:", agent.map(|agent| &agent.instance_id))
            .optional("Incarnation:", vm.incarnation.id.as_ref())
            .optional("Generation:", agent.and_then(|agent| agent.generation))
            .optional("Parent:", agent.and_then(|agent| agent.parent_instance_id.as_ref()))
            .optional("Restore:", vm.restore.as_ref().map(restore))
            .optional("Boot:", vm.boot.as_ref().map(boot))
            .optional("Last seen:", vm.last_seen)
            .optional("Quiesced until:", vm.quiesced_until)
            .value("Failed probes:", format!("{} of {}", vm.failed_probes, vm.attempts))
            .optional("Next probe:", vm.next_probe)
            .optional(
                "Last error:",
                vm.last_error.as_ref().map(|error| format!("{} at {}", error.message, error.at)),
            )
            .optional("VMM:", vm.vmm.as_ref().map(vmm))
            .value(
                "Socket id:",
                format!("device {}, inode {}", vm.incarnation.device, vm.incarnation.inode),
            )
            .value(
                "Connections:",
                format!(
                    "{} idle, {} in use, at most {}; {} waiting; {} streams",
                    vm.pool.idle, vm.pool.in_use, vm.pool.limit, vm.pool.waiting, vm.pool.streams
                ),
            )
    })?;
    Ok(ExitStatus::Success)
}

/// Formats the last restore: its state and the steps that failed.
fn restore(report: &RestoreReport) -> String {
    let failed = report.steps.iter().filter(|step| !step.ok);
    let failed: Vec<_> = failed.map(|step| format!("{}: {}", step.step, step.detail)).collect();
    let state = format!("{} at {}", report.state.as_str(), report.at);
    if failed.is_empty() { state } else { format!("{state}; failed: {}", failed.join("; ")) }
}

/// Formats the timeline of the boot: the time at which the VMM was seen, and the milliseconds from then to each step.
fn boot(boot: &BootTimeline) -> String {
    let seen = boot.vmm_seen_at;
    let steps = [
        ("connected", boot.connected_at),
        ("announced", boot.announced_at),
        ("ready", boot.ready_at),
        ("configured", boot.configured_at),
    ];
    let steps = steps.iter().filter_map(|(step, at)| {
        let after = (*at)?.0.duration_since(seen.0).unwrap_or_default();
        Some(format!(", {step} after {} ms", after.as_millis()))
    });
    format!("VMM seen at {seen}{}", steps.collect::<String>())
}

fn configured(vm: &Vm, configured: ConfigState) -> String {
    let reason = vm.configuration.as_ref().and_then(|condition| condition.reason.as_ref());
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{reason}", configured.as_str())
}

/// Formats the VMM's process: name, pid, memory and processor time.
fn vmm(vmm: &Vmm) -> String {
    let name = vmm.name.as_deref().map_or_else(String::new, |name| format!("{name}, "));
    let memory = vmm.rss_bytes.map(|bytes| format!(", {} MiB resident", bytes / (1024 * 1024)));
    let cpu =
        vmm.cpu_ms.map(|ms| format!(", {}.{} s of processor time", ms / 1000, ms % 1000 / 100));
    format!("{name}pid {}{}{}", vmm.pid, memory.unwrap_or_default(), cpu.unwrap_or_default())
}
