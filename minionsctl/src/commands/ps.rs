//! `minionsctl ps [VM]`: lists the programs of a VM. [`every_vm`]: of all VMs. [`program_table`]: the
//! programs and their table.

mod every_vm;
mod program_table;

use super::context::Context;
use crate::agent;
use crate::cli::PsArgs;
use crate::client::DaemonClient;
use crate::config::ClientConfig;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use crate::target::Target;
use minions_proto::message::ExecList;
use program_table::{HEADER, programs, row};
use std::sync::Arc;

pub(super) async fn run(
    context: &Context<'_>,
    config: &ClientConfig,
    args: &PsArgs,
) -> Result<ExitStatus, Failure> {
    if args.vm.is_none() && config.agent.is_none() {
        return every_vm::run(context, Arc::new(DaemonClient::new(config)?), args.all).await;
    }
    match &Target::new(config, args.vm.clone())? {
        Target::Agent(address) => {
            let answer = agent::call(address, &ExecList {}, context.quick_direct()).await?;
            context.printer.json(&answer.json)?;
        }
        Target::Vm(client, vm) => {
            let list = programs(context, client, vm, args.all).await?;
            if args.quiet || context.printer.is_names() {
                context.printer.names(list.execs.iter().map(|info| info.id.as_str()))?;
                return Ok(ExitStatus::Success);
            }
            context.printer.result(&list, |list| {
                let table = Rows::with_header(&HEADER);
                list.execs.iter().fold(table, |table, info| table.row(row(info)))
            })?;
        }
    }
    Ok(ExitStatus::Success)
}
