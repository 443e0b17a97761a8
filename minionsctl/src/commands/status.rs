//! `minionsctl status VM`: asks the agent for the status of its guest.

use super::context::Context;
use super::health;
use crate::agent;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use crate::target::Target;
use minions_api::status::{Filesystem, Status};
use minions_proto::message::ReportStatus;

const MIB: u64 = 1024 * 1024;

pub(super) async fn run(context: &Context<'_>, target: &Target) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(address) => {
            let answer = agent::call(address, &ReportStatus {}, context.quick_direct()).await?;
            context.printer.json(&answer.json)?;
        }
        Target::Vm(client, vm) => {
            let status: Status = client.get(&vm_path(vm, "/status"), context.quick()).await?;
            context.printer.result(&status, rows)?;
        }
    }
    Ok(ExitStatus::Success)
}

fn rows(status: &Status) -> Rows {
    let load =
        status.load.map(|load| format!("{:.2} {:.2} {:.2}", load.one, load.five, load.fifteen));
    let swap = status.swap_total_mb.zip(status.swap_used_mb);
    let rows = Rows::new()
        .value("Uptime:", health::uptime(status.uptime_secs))
        .value("Memory:", format!("{} of {} MiB", status.memory_used_mb, status.memory_total_mb))
        .optional("Swap:", swap.map(|(total, used)| format!("{used} of {total} MiB")))
        .value("Disk:", format!("{} of {} GiB", status.disk_used_gb, status.disk_total_gb))
        .optional("Load:", load)
        .optional("CPUs:", status.cpus)
        .optional("CPU:", status.cpu_percent.map(|percent| format!("{percent:.1} %")))
        .optional("OS:", status.os.as_ref().map(|os| &os.pretty_name))
        .optional("Kernel:", status.kernel.as_ref());
    let filesystems = status.filesystems.iter().flatten();
    let rows =
        filesystems.fold(rows, |rows, filesystem| rows.value("Filesystem:", usage(filesystem)));
    status.interfaces.iter().flatten().fold(rows, |rows, interface| {
        let addresses = interface.addresses.join(" ");
        rows.value("Interface:", format!("{} {addresses}", interface.name))
    })
}

fn usage(filesystem: &Filesystem) -> String {
    let read_only = if filesystem.read_only { ", read-only" } else { "" };
    format!(
        "{} {} of {} MiB ({} on {}{read_only})",
        filesystem.mount_point,
        filesystem.used_bytes / MIB,
        filesystem.total_bytes / MIB,
        filesystem.fs_type,
        filesystem.source,
    )
}
