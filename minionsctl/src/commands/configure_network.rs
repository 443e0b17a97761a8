//! `minionsctl configure-network VM --ip … --gateway … --dns …`.

use super::{Context, Target};
use crate::agent;
use crate::cli;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::{Printer, Rows};
use minions_api::network::{NetworkApplied, NetworkRequest};
use minions_proto::message::ConfigureNetwork;
use reqwest::Method;

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    args: cli::ConfigureNetwork,
) -> Result<ExitStatus, Failure> {
    let cli::ConfigureNetwork { ip, gateway, dns, .. } = args;
    match target {
        Target::Agent(socket) => {
            let call = ConfigureNetwork { ip, gateway, dns };
            // The same look that minionsd would take; a base agent might not.
            call.plan()?;
            let answer = agent::call(socket, &call, context.quick_direct()).await?;
            Printer::json(&answer.json)?;
        }
        Target::Vm(client, vm) => {
            let body = NetworkRequest { ip, gateway, dns };
            let path = vm_path(vm, "/network");
            let applied: NetworkApplied =
                client.send_json(Method::PUT, &path, &body, context.quick()).await?;
            context
                .printer
                .result(&applied, |applied| Rows::new().row([applied.message.clone()]))?;
        }
    }
    Ok(ExitStatus::Success)
}
