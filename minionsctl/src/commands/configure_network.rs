//! `minionsctl configure-network VM …` and `minionsctl confirm-network VM ID`.

use super::{Context, Target};
use crate::agent::{self, AgentAddress};
use crate::cli;
use crate::client::{Patience, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::read_all;
use crate::output::{Printer, Rows};
use minions_api::network::{
    Check, NetworkApplied, NetworkConfirmRequest, NetworkConfirmed, NetworkDiff, NetworkRequest,
};
use minions_proto::message::{
    ChangeNetwork, ConfigureNetwork, HealthCheck, NETWORK_FEATURE, NetworkConfirm,
};
use reqwest::Method;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// The most bytes of a request, as minionsd takes it.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// What an agent takes at most to make a change, verify it, and put it back.
const CHANGE: Duration = Duration::from_secs(60);

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    args: cli::ConfigureNetwork,
) -> Result<ExitStatus, Failure> {
    let body = request(args)?;
    match target {
        Target::Agent(address) => direct(context, address, &body).await?,
        Target::Vm(client, vm) => {
            let path = vm_path(vm, "/network");
            let patience = Patience { asked: context.timeout, at_most: CHANGE };
            let applied: NetworkApplied =
                client.send_json(Method::PUT, &path, &body, patience).await?;
            show(context.printer, &applied)?;
        }
    }
    Ok(ExitStatus::Success)
}

/// Straight to the agent: the same look that minionsd would take first, since a base agent might not.
async fn direct(
    context: &Context<'_>,
    address: &AgentAddress,
    body: &NetworkRequest,
) -> Result<(), Failure> {
    // REST's fields are the wire's.
    let unfit = |error: serde_json::Error| Failure::Output(error.into());
    let json = serde_json::to_value(body).map_err(unfit)?;
    let change: ChangeNetwork = serde_json::from_value(json).map_err(unfit)?;
    let patience = context.timeout.unwrap_or(CHANGE);
    if change.beyond_base().is_none() {
        let (Some(ip), Some(gateway)) = (change.ip, change.gateway) else {
            return Err(Failure::Usage("--ip and --gateway go together"));
        };
        let call = ConfigureNetwork { ip, gateway, dns: change.dns.unwrap_or_default() };
        call.plan()?;
        return Printer::json(&agent::call(address, &call, patience).await?.json);
    }
    change.plan()?;
    let health = agent::call(address, &HealthCheck {}, context.quick_direct()).await?.reply;
    // A restricted agent says itself what it refuses.
    let knows = health.agent.is_some_and(|agent| {
        agent.allowed.is_some() || agent.features.iter().any(|feature| feature == NETWORK_FEATURE)
    });
    if !knows {
        return Err(Failure::Usage("this agent takes --ip, --gateway and --dns only"));
    }
    Printer::json(&agent::call(address, &change, patience).await?.json)
}

fn request(args: cli::ConfigureNetwork) -> Result<NetworkRequest, Failure> {
    if let Some(file) = &args.file {
        let mut request = from_file(file)?;
        request.dry_run = request.dry_run.or(args.dry_run.then_some(true));
        return Ok(request);
    }
    let verify = match args.verify.as_slice() {
        [] => None,
        [none] if none == "none" => Some(Vec::new()),
        names => Some(names.iter().map(|name| check(name)).collect::<Result<_, _>>()?),
    };
    let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    Ok(NetworkRequest {
        ip: args.ip,
        gateway: args.gateway,
        dns: args.dns,
        interfaces: args.interface,
        routes: Some(args.route).filter(|routes| !routes.is_empty()),
        search: some(args.search),
        mtu: args.mtu,
        hostname: args.hostname,
        verify,
        confirm_within_ms: args.confirm_within.map(milliseconds),
        dry_run: args.dry_run.then_some(true),
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn check(name: &str) -> Result<Check, Failure> {
    serde_json::from_value(name.into()).map_err(|_| {
        Failure::Usage("--verify takes link, addresses, route, gateway, dns, or none alone")
    })
}

/// A body as the daemon takes it.
fn from_file(file: &Path) -> Result<NetworkRequest, Failure> {
    let bytes = if file == Path::new("-") {
        read_all(MAX_BODY).map_err(Failure::Input)?
    } else {
        read_file(file).map_err(|source| Failure::File { path: file.to_owned(), source })?
    };
    if bytes.len() > MAX_BODY {
        return Err(Failure::Usage("-f, --file: a request has at most 2 MiB"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|source| Failure::Request { path: file.to_owned(), source })
}

fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let at_most = u64::try_from(MAX_BODY).unwrap_or(u64::MAX).saturating_add(1);
    File::open(file)?.take(at_most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What was done, what is different, and what else there is to say: each with columns of its own.
fn show(printer: &Printer, applied: &NetworkApplied) -> Result<(), Failure> {
    if printer.is_json() {
        return Printer::json(applied);
    }
    printer.heading(&applied.message)?;
    printer.result(applied, |applied| {
        let changes = applied.changes.iter().flatten();
        changes.fold(Rows::new(), |rows, change| rows.row(line(change)))
    })?;
    printer.result(applied, remarks)
}

fn remarks(applied: &NetworkApplied) -> Rows {
    let names = applied
        .verified
        .iter()
        .flatten()
        .filter_map(|check| serde_json::to_value(check).ok()?.as_str().map(str::to_owned));
    let names: Vec<_> = names.collect();
    let rows = match names.as_slice() {
        [] => Rows::new(),
        names => Rows::new().value("Verified:", names.join(", ")),
    };
    let rows = rows.optional("DNS by:", applied.dns_owner.as_ref());
    let warnings = applied.warnings.iter().flatten();
    let rows = warnings.fold(rows, |rows, text| rows.value("Warning:", text));
    match &applied.pending {
        None => rows,
        Some(pending) => {
            rows.value("Confirm by:", format!("minionsctl confirm-network VM {}", pending.id))
        }
    }
}

/// `+` what is new, `-` what is gone, `~` what is another.
fn line(change: &NetworkDiff) -> [String; 4] {
    let (mark, text) = match (&change.from, &change.to) {
        (Some(from), Some(to)) => ("~", format!("{from} -> {to}")),
        (None, Some(to)) => ("+", to.clone()),
        (Some(from), None) => ("-", from.clone()),
        (None, None) => ("~", String::new()),
    };
    let interface = change.interface.clone().unwrap_or_default();
    [mark.to_owned(), change.what.clone(), interface, text]
}

/// `confirm-network`.
pub(super) async fn confirm(
    context: &Context<'_>,
    target: &Target,
    id: String,
) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(address) => {
            let call = NetworkConfirm { id };
            Printer::json(&agent::call(address, &call, context.quick_direct()).await?.json)?;
        }
        Target::Vm(client, vm) => {
            let path = vm_path(vm, "/network/confirm");
            let body = NetworkConfirmRequest { id };
            let done: NetworkConfirmed =
                client.send_json(Method::POST, &path, &body, context.quick()).await?;
            context.printer.result(&done, |done| Rows::new().row([done.message.clone()]))?;
        }
    }
    Ok(ExitStatus::Success)
}
