//! `minionsctl declarations`.

use crate::client::DaemonClient;
use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::declaration::{DeclarationList, DeclaredNetwork, StoredDeclaration};

pub(in super::super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
) -> Result<ExitStatus, Failure> {
    let list: DeclarationList = client.get("/declarations", Context::registry()).await?;
    context.printer.result(&list, |list| {
        let header = ["NAME", "REVISION", "LABELS", "HOSTNAME", "NETWORK", "DRIFT"];
        let table = Rows::with_header(&header);
        list.declarations.iter().fold(table, |table, stored| table.row(row(stored)))
    })?;
    if !list.persistent {
        let remark = "minionsd keeps the declared state in memory only, and loses it when it ends: start it with --state \
                      PATH";
        context.printer.remark(remark);
    }
    Ok(ExitStatus::Success)
}

fn row(StoredDeclaration { declaration, revision }: &StoredDeclaration) -> [String; 6] {
    let labels = declaration.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let labels: Vec<_> = labels.collect();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    [
        declaration.name.clone(),
        revision.to_string(),
        or_dash(labels.join(",")),
        or_dash(declaration.hostname.clone().unwrap_or_default()),
        or_dash(declaration.network.as_ref().map(network).unwrap_or_default()),
        declaration.drift.map_or("-", |drift| drift.as_str()).to_owned(),
    ]
}

/// Describes a network in a few words.
fn network(network: &DeclaredNetwork) -> String {
    let DeclaredNetwork { pool, ip, interfaces, dns, routes, search, mtu, .. } = network;
    let addressing = match (pool, ip) {
        (Some(pool), _) => Some(format!("pool {pool}")),
        (None, Some(ip)) => Some(ip.clone()),
        (None, None) => Some(format!("{} interfaces", interfaces.len())),
    };
    let addressing =
        addressing.filter(|_| pool.is_some() || ip.is_some() || !interfaces.is_empty());
    let parts = [
        addressing,
        dns.as_ref().map(|dns| format!("dns {}", dns.join(","))),
        routes.as_ref().map(|routes| format!("{} routes", routes.len())),
        search.as_ref().map(|search| format!("search {}", search.join(","))),
        mtu.map(|mtu| format!("mtu {mtu}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
