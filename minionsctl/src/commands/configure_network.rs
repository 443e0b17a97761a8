//! `minionsctl configure-network VM …` and `minionsctl confirm-network VM ID`: changes the network.

use super::context::Context;
use crate::agent;
use crate::agent_address::AgentAddress;
use crate::bounded_file;
use crate::cli;
use crate::client::{CallDeadlines, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::read_all;
use crate::output::{Printer, Rows};
use crate::target::Target;
use minions_api::VmName;
use minions_api::network::{
    Check, NetworkApplied, NetworkConfirmRequest, NetworkConfirmed, NetworkDiff, NetworkRequest,
};
use minions_proto::message::{ChangeNetwork, ConfigureNetwork, NetworkConfirm};
use reqwest::Method;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest request that minionsd accepts, in bytes.
const MAX_BODY: usize = 2 * 1024 * 1024;

const TOO_LARGE: Failure = Failure::Usage("-f, --file: the request is larger than 2 MiB");

/// Longest time that an agent takes to make a change, verify it, and roll it back.
const CHANGE: Duration = Duration::from_secs(60);

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    args: cli::ConfigureNetworkArgs,
) -> Result<ExitStatus, Failure> {
    let resource = if args.overrides { "/network?override=true" } else { "/network" };
    let body = request(args)?;
    match target {
        Target::Agent(address) => direct(context, address, body).await?,
        Target::Vm(client, vm) => {
            let path = vm_path(vm, resource);
            let patience = CallDeadlines { asked: context.timeout, at_most: CHANGE };
            let applied: NetworkApplied =
                client.send_json(Method::PUT, &path, &body, patience).await?;
            show(context.printer, vm, &applied)?;
        }
    }
    Ok(ExitStatus::Success)
}

/// Calls the agent directly. Validates the request first, as minionsd does: a base agent might not.
async fn direct(
    context: &Context<'_>,
    address: &AgentAddress,
    body: NetworkRequest,
) -> Result<(), Failure> {
    let change = ChangeNetwork::from(body);
    let patience = context.timeout.unwrap_or(CHANGE);
    if change.beyond_base().is_none() {
        let (Some(ip), Some(gateway)) = (change.ip, change.gateway) else {
            return Err(Failure::Usage("--ip and --gateway require each other"));
        };
        let call = ConfigureNetwork { ip, gateway, dns: change.dns.unwrap_or_default() };
        call.plan()?;
        return context.printer.json(&agent::call(address, &call, patience).await?.json);
    }
    change.plan()?;
    if !agent::has_network(address, context.quick_direct()).await? {
        return Err(Failure::Usage(
            "this agent version supports only --ip, --gateway and --dns (no feature network2); upgrade \
             minions-agent",
        ));
    }
    context.printer.json(&agent::call(address, &change, patience).await?.json)
}

fn request(args: cli::ConfigureNetworkArgs) -> Result<NetworkRequest, Failure> {
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
        Failure::Usage("--verify accepts link, addresses, route, gateway, dns, or none alone")
    })
}

/// Reads the request from a JSON file, or from standard input for `-`.
fn from_file(file: &Path) -> Result<NetworkRequest, Failure> {
    let path: PathBuf;
    let bytes = if file == Path::new("-") {
        path = "standard input".into();
        read_all(MAX_BODY).map_err(Failure::Input)?
    } else {
        path = file.to_owned();
        match bounded_file::read(file, MAX_BODY) {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(TOO_LARGE),
            read => read.map_err(|source| Failure::File { path: path.clone(), source })?,
        }
    };
    if bytes.len() > MAX_BODY {
        return Err(TOO_LARGE);
    }
    serde_json::from_slice(&bytes).map_err(|source| Failure::Json { path, source })
}

/// Prints the message, the differences and the remarks, each with its own columns.
fn show(printer: &Printer, vm: &VmName, applied: &NetworkApplied) -> Result<(), Failure> {
    if printer.is_structured() {
        return printer.json(applied);
    }
    printer.heading(&applied.message)?;
    printer.result(applied, |applied| {
        let changes = applied.changes.iter().flatten();
        changes.fold(Rows::new(), |rows, change| rows.row(line(change)))
    })?;
    printer.result(applied, |applied| remarks(vm, applied))
}

fn remarks(vm: &VmName, applied: &NetworkApplied) -> Rows {
    let names = applied.verified.iter().flatten().map(|check| check.as_str());
    let names: Vec<_> = names.collect();
    let rows = match names.as_slice() {
        [] => Rows::new(),
        names => Rows::new().value("Verified:", names.join(", ")),
    };
    let rows = rows.optional("DNS owner:", applied.dns_owner.as_ref());
    let warnings = applied.warnings.iter().flatten();
    let rows = warnings.fold(rows, |rows, text| rows.value("Warning:", text));
    match &applied.pending {
        None => rows,
        Some(pending) => {
            rows.value("Confirm with:", format!("minionsctl confirm-network {vm} {}", pending.id))
        }
    }
}

/// Formats a difference: `+` added, `-` removed, `~` changed.
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

/// Runs `confirm-network`.
pub(super) async fn confirm(
    context: &Context<'_>,
    target: &Target,
    id: String,
) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(address) => {
            let call = NetworkConfirm { id };
            context
                .printer
                .json(&agent::call(address, &call, context.quick_direct()).await?.json)?;
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
