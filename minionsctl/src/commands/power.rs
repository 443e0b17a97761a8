//! `minionsctl poweroff VM` and `minionsctl reboot VM`.

use super::context::Context;
use super::wait::{self, WaitLimit};
use crate::agent;
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use crate::target::Target;
use minions_api::VmName;
use minions_api::power::{PowerAccepted, PowerAction, PowerRequest};
use minions_api::vm::Vm;
use minions_proto::message::Power;
use reqwest::Method;
use serde::Serialize;

/// Accepted request, and the VM afterwards.
#[derive(Debug, Serialize)]
struct PowerResult {
    #[serde(flatten)]
    accepted: PowerAccepted,
    /// Absent if the VM is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<Vm>,
}

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    action: PowerAction,
    force: bool,
    wait: bool,
) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(_) if wait => {
            return Err(Failure::Usage(
                "--wait needs minionsd, which sees the next boot; leave --socket out",
            ));
        }
        Target::Agent(address) => {
            let call = Power { action, force };
            let answer = agent::call(address, &call, context.quick_direct()).await?;
            context.printer.json(&answer.json)?;
        }
        Target::Vm(client, vm) => {
            // Before the call, which is part of the wait.
            let limit = WaitLimit::to_end(context);
            let body = PowerRequest { action, force };
            let path = vm_path(vm, "/power");
            let accepted: PowerAccepted =
                client.send_json(Method::POST, &path, &body, context.quick()).await?;
            if wait {
                wait_for_it(context, client, vm, action, accepted, limit).await?;
            } else {
                context.printer.result(&accepted, rows)?;
            }
        }
    }
    Ok(ExitStatus::Success)
}

async fn wait_for_it(
    context: &Context<'_>,
    client: &DaemonClient,
    name: &VmName,
    action: PowerAction,
    accepted: PowerAccepted,
    limit: WaitLimit,
) -> Result<(), Failure> {
    if !context.printer.is_structured() {
        context.printer.heading(&accepted.message)?;
    }
    let boot_id = accepted.boot_id.as_deref();
    let vm = match (action, boot_id) {
        (PowerAction::Reboot, Some(boot_id)) => {
            Some(wait::until_rebooted(client, name, boot_id, limit).await?)
        }
        (PowerAction::Reboot, None) => {
            return Err(Failure::Usage(
                "this minionsd does not report the boot that ends; --wait needs a newer one",
            ));
        }
        (PowerAction::Poweroff, boot_id) => {
            wait::until_powered_off(client, name, boot_id, limit).await?
        }
    };
    let end = match (action, &vm) {
        (PowerAction::Reboot, Some(vm)) => wait::ready(vm),
        (_, Some(vm)) => wait::seen(Some(vm)),
        (_, None) => format!("{name} is powered off: its VMM has ended"),
    };
    context.printer.result(&PowerResult { accepted, vm }, |_| Rows::new().row([end]))
}

fn rows(accepted: &PowerAccepted) -> Rows {
    let rows = Rows::new().row([accepted.message.clone()]);
    let rows = match &accepted.boot_id {
        Some(boot_id) => rows.row([format!("the boot that ends: {boot_id}")]),
        None => rows,
    };
    match &accepted.next_step {
        Some(next_step) => rows.row([next_step.clone()]),
        None => rows,
    }
}
