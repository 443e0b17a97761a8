//! `minionsctl network VM`.

use super::{Context, Target};
use crate::agent;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::{Printer, Rows};
use minions_api::network::Network;
use minions_api::status::Interface;
use minions_proto::message::ReportStatus;

pub(super) async fn run(context: &Context<'_>, target: &Target) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(socket) => {
            let answer = agent::call(socket, &ReportStatus {}, context.quick_direct()).await?;
            let interfaces = answer.reply.interfaces.ok_or(Failure::Usage(
                "this agent speaks the base protocol only, which doesn't report interfaces",
            ))?;
            Printer::json(&serde_json::json!({ "status": "ok", "interfaces": interfaces }))?;
        }
        Target::Vm(client, vm) => {
            let network: Network = client.get(&vm_path(vm, "/network"), context.quick()).await?;
            context.printer.result(&network, |network| {
                let table =
                    Rows::with_header(&["NAME", "UP", "MAC", "MTU", "ADDRESSES", "RX", "TX"]);
                network.interfaces.iter().fold(table, |table, interface| table.row(row(interface)))
            })?;
        }
    }
    Ok(ExitStatus::Success)
}

fn row(interface: &Interface) -> [String; 7] {
    [
        interface.name.clone(),
        if interface.up { "yes" } else { "no" }.into(),
        interface.mac.clone().unwrap_or_else(|| "-".into()),
        interface.mtu.to_string(),
        interface.addresses.join(" "),
        format!("{} B", interface.rx_bytes),
        format!("{} B", interface.tx_bytes),
    ]
}
