//! `minionsctl ps` without a VM: the programs of all VMs.

use super::program_table::{HEADER, programs, row};
use crate::cli::SelectorArgs;
use crate::client::DaemonClient;
use crate::commands::context::Context;
use crate::commands::ls;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::{Rows, failure_line};
use futures_util::StreamExt;
use futures_util::stream;
use minions_api::exec::ExecInfo;
use minions_api::vm::VmState;
use minions_api::{ErrorCode, VmName};
use serde::Serialize;
use std::sync::Arc;

/// Number of VMs that are asked at the same time, as by `exec` on many VMs.
const CONCURRENCY: usize = 32;

/// Programs of one VM.
#[derive(Debug, Serialize)]
struct VmPrograms {
    vm: VmName,
    execs: Vec<ExecInfo>,
    /// Reason why the programs are unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Programs of all VMs.
#[derive(Debug, Serialize)]
struct AllPrograms {
    vms: Vec<VmPrograms>,
}

pub(super) async fn run(
    context: &Context<'_>,
    client: Arc<DaemonClient>,
    all: bool,
) -> Result<ExitStatus, Failure> {
    let vms = ls::selected(&client, &SelectorArgs::default()).await?.vms;
    let asked = stream::iter(vms).map(|vm| {
        let client = &client;
        async move {
            if vm.state != VmState::Ready {
                let error = format!("{} is {}", vm.name, vm.state.as_str());
                return (VmPrograms { vm: vm.name, execs: Vec::new(), error: Some(error) }, true);
            }
            match programs(context, client, &vm.name, all).await {
                Ok(list) => (VmPrograms { vm: vm.name, execs: list.execs, error: None }, true),
                Err(failure) => {
                    let error = Some(failure_line(&failure));
                    let is_expected = is_expected(&failure);
                    (VmPrograms { vm: vm.name, execs: Vec::new(), error }, is_expected)
                }
            }
        }
    });
    let answers: Vec<_> = asked.buffered(CONCURRENCY).collect().await;
    let complete = answers.iter().all(|(_, is_expected)| *is_expected);
    let list = AllPrograms { vms: answers.into_iter().map(|(programs, _)| programs).collect() };
    show(context, &list)?;
    Ok(if complete { ExitStatus::Success } else { ExitStatus::Failure })
}

/// Reports whether the failure is a property of the VM: an agent without the operation, or a VM that has just gone.
fn is_expected(failure: &Failure) -> bool {
    let code = failure.problem().map(|problem| problem.code);
    matches!(code, Some(ErrorCode::AgentTooOld | ErrorCode::VmNotFound))
}

fn show(context: &Context<'_>, list: &AllPrograms) -> Result<(), Failure> {
    if context.printer.is_names() {
        let ids = list.vms.iter().flat_map(|vm| &vm.execs).map(|info| info.id.as_str());
        return context.printer.names(ids);
    }
    context.printer.result(list, |list| {
        let header = [&["VM"][..], &HEADER].concat();
        let programs = list.vms.iter().flat_map(|vm| vm.execs.iter().map(|info| (&vm.vm, info)));
        programs.fold(Rows::with_header(&header), |rows, (vm, info)| {
            rows.row([vm.to_string()].into_iter().chain(row(info)))
        })
    })?;
    if !context.printer.is_structured() {
        for error in list.vms.iter().filter_map(|vm| vm.error.as_ref()) {
            context.printer.remark(&format!("programs unknown: {error}"));
        }
    }
    Ok(())
}
