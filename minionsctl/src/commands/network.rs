//! `minionsctl network VM`: prints interfaces, routes and name servers.

use super::context::Context;
use crate::agent;
use crate::agent_address::AgentAddress;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::{Printer, Rows};
use crate::target::Target;
use minions_api::network::{Network, Route};
use minions_api::status::Interface;
use minions_proto::message::{ReadNetwork, ReportStatus};

pub(super) async fn run(context: &Context<'_>, target: &Target) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(address) => direct(context, address).await?,
        Target::Vm(client, vm) => {
            let network: Network = client.get(&vm_path(vm, "/network"), context.quick()).await?;
            if context.printer.is_structured() {
                context.printer.json(&network)?;
            } else {
                tables(context.printer, &network)?;
            }
        }
    }
    Ok(ExitStatus::Success)
}

async fn direct(context: &Context<'_>, address: &AgentAddress) -> Result<(), Failure> {
    if agent::has_network(address, context.quick_direct()).await? {
        let answer = agent::call(address, &ReadNetwork {}, context.quick_direct()).await?;
        return context.printer.json(&answer.json);
    }
    let answer = agent::call(address, &ReportStatus {}, context.quick_direct()).await?;
    let interfaces = answer.reply.interfaces.ok_or(Failure::Usage(
        "this agent version supports only the base protocol, which does not report interfaces; upgrade \
         minions-agent",
    ))?;
    context.printer.json(&serde_json::json!({ "status": "ok", "interfaces": interfaces }))
}

/// Prints the tables of interfaces, routes and name servers. A base agent reports interfaces only.
fn tables(printer: &Printer, network: &Network) -> Result<(), Failure> {
    printer.result(network, |network| {
        let columns = ["NAME", "UP", "MAC", "MTU", "ADDRESSES", "RX", "TX", "ERRORS", "DROPPED"];
        let table = Rows::with_header(&columns);
        network.interfaces.iter().fold(table, |table, interface| table.row(row(interface)))
    })?;
    if let Some(routes) = &network.routes {
        printer.heading("")?;
        printer.result(routes, |routes| {
            let table = Rows::with_header(&["TO", "VIA", "INTERFACE", "METRIC", "PROTOCOL"]);
            routes.iter().fold(table, |table, route| table.row(route_row(route)))
        })?;
    }
    let Some(dns) = &network.dns else { return Ok(()) };
    printer.heading("")?;
    printer.result(network, |network| {
        let rows = Rows::new()
            .optional("Hostname:", network.hostname.as_ref())
            .value("DNS:", dns.servers.join(" "))
            .value("Search:", dns.search.join(" "))
            .value("DNS owner:", &dns.owner);
        match &network.pending {
            None => rows,
            Some(pending) => {
                let seconds = pending.expires_in_ms.div_ceil(1000);
                rows.value(
                    "Pending:",
                    format!("{}, rolled back in {seconds} s unless confirmed", pending.id),
                )
            }
        }
    })
}

fn row(interface: &Interface) -> [String; 9] {
    [
        interface.name.clone(),
        if interface.up { "yes" } else { "no" }.into(),
        interface.mac.clone().unwrap_or_else(|| "-".into()),
        interface.mtu.to_string(),
        interface.addresses.join(" "),
        format!("{} B", interface.rx_bytes),
        format!("{} B", interface.tx_bytes),
        (interface.rx_errors.saturating_add(interface.tx_errors)).to_string(),
        (interface.rx_dropped.saturating_add(interface.tx_dropped)).to_string(),
    ]
}

fn route_row(route: &Route) -> [String; 5] {
    let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let on_link = if route.on_link { " (on link)" } else { "" };
    [
        route.to.clone(),
        or_dash(&route.via) + on_link,
        or_dash(&route.interface),
        route.metric.to_string(),
        route.protocol.clone(),
    ]
}
