//! `minionsctl pool …`.

use super::path_segment;
use crate::cli::PoolCommand;
use crate::client::DaemonClient;
use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::pool::{Lease, LeaseKind, LeaseList, PoolList, PoolStatus, ReserveRequest};
use reqwest::Method;

pub(in super::super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    command: PoolCommand,
) -> Result<ExitStatus, Failure> {
    match command {
        PoolCommand::Ls => list(context, client).await?,
        PoolCommand::Leases { pool, hosts } => {
            leases(context, client, pool.as_deref(), hosts).await?;
        }
        PoolCommand::Reserve { pool, address, vm, interface } => {
            let request = ReserveRequest { address, vm, interface };
            let path = format!("/pools/{}/leases", path_segment(&pool));
            let lease: Lease =
                client.send_json(Method::POST, &path, &request, Context::registry()).await?;
            let holder = lease.vm.as_ref().map_or("no VM".to_owned(), ToString::to_string);
            let done = format!("{} is reserved for {holder}", lease.address);
            context.printer.result(&lease, |_| Rows::new().row([done]))?;
        }
        PoolCommand::Release { pool, address } => {
            let leases = leases_path(pool.as_deref());
            let path = format!("{leases}/{}", path_segment(&address.to_string()));
            let lease: Lease = client.delete(&path, Context::registry()).await?;
            let done = format!("{} is free", lease.address);
            context.printer.result(&lease, |_| Rows::new().row([done]))?;
        }
    }
    Ok(ExitStatus::Success)
}

async fn list(context: &Context<'_>, client: &DaemonClient) -> Result<(), Failure> {
    let pools: PoolList = client.get("/pools", Context::registry()).await?;
    context.printer.result(&pools, |list| {
        let table = Rows::with_header(&["NAME", "SUBNET", "RANGE", "GATEWAY", "LEASED", "FREE"]);
        list.pools.iter().fold(table, |table, pool| table.row(row(pool)))
    })
}

fn row(PoolStatus { pool, leased, free, .. }: &PoolStatus) -> [String; 6] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let free = if *free == u64::MAX { "more".to_owned() } else { free.to_string() };
    [
        pool.name.clone(),
        pool.subnet.clone(),
        or_dash(&pool.range),
        or_dash(&pool.gateway),
        leased.to_string(),
        free,
    ]
}

/// Returns the path of the leases of a pool, or of all leases.
fn leases_path(pool: Option<&str>) -> String {
    pool.map_or_else(
        || "/leases".to_owned(),
        |pool| format!("/pools/{}/leases", path_segment(pool)),
    )
}

async fn leases(
    context: &Context<'_>,
    client: &DaemonClient,
    pool: Option<&str>,
    hosts: bool,
) -> Result<(), Failure> {
    let list: LeaseList = client.get(&leases_path(pool), Context::registry()).await?;
    if hosts {
        let held = list.leases.iter().filter(|lease| lease.kind != LeaseKind::Duplicate);
        let named = held.filter_map(|lease| Some((lease.address, lease.vm.as_ref()?)));
        let lines: Vec<_> = named.map(|(address, vm)| format!("{address}\t{vm}")).collect();
        return if lines.is_empty() { Ok(()) } else { context.printer.lines(&lines) };
    }
    context.printer.result(&list, |list| {
        let table = Rows::with_header(&["ADDRESS", "VM", "INTERFACE", "KIND", "UNUSED SINCE"]);
        list.leases.iter().fold(table, |table, lease| table.row(lease_row(lease)))
    })
}

fn lease_row(lease: &Lease) -> [String; 5] {
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or("-".into());
    [
        lease.address.to_string(),
        or_dash(lease.vm.as_ref().map(ToString::to_string)),
        or_dash(Some(lease.interface.clone())),
        lease.kind.as_str().to_owned(),
        or_dash(lease.unused_since.map(|since| since.to_string())),
    ]
}
