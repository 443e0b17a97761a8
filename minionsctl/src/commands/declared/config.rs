//! `minionsctl config VM`.

use crate::cli;
use crate::client::{CallDeadlines, DaemonClient, vm_path};
use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::declaration::{ConfigState, DeclaredRestore, VmConfig};
use minions_api::explanation::{ConfigExplanation, FieldCandidate};
use minions_api::network::NetworkRequest;
use reqwest::Method;
use std::time::Duration;

/// Longest time that an agent takes to make a change, verify it, and roll it back.
const CHANGE: Duration = Duration::from_secs(60);

pub(in super::super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    args: &cli::ConfigArgs,
) -> Result<ExitStatus, Failure> {
    let config: VmConfig = if args.apply {
        let path = vm_path(&args.vm, "/config/apply");
        let patience = CallDeadlines { asked: context.timeout, at_most: CHANGE };
        client.send_json(Method::POST, &path, &serde_json::json!({}), patience).await?
    } else {
        let query = if args.explain { "/config?explain=true" } else { "/config" };
        client.get(&vm_path(&args.vm, query), Context::registry()).await?
    };
    context.printer.result(&config, head)?;
    if !context.printer.is_structured() && !config.origins.is_empty() {
        context.printer.heading("")?;
        context.printer.result(&config, fields)?;
    }
    if let Some(explanation) =
        config.explanation.as_ref().filter(|_| !context.printer.is_structured())
    {
        context.printer.heading("")?;
        context.printer.result(explanation, ranks)?;
        context.printer.heading("")?;
        context.printer.result(explanation, candidates)?;
    }
    let is_applied = config.configured == Some(ConfigState::Applied);
    Ok(if args.apply && !is_applied { ExitStatus::Failure } else { ExitStatus::Success })
}

fn head(config: &VmConfig) -> Rows {
    let name = if config.exists {
        config.vm.to_string()
    } else {
        format!("{} (no such VM now)", config.vm)
    };
    let declarations = match config.declarations.as_slice() {
        [] => "none matches".to_owned(),
        all => all.join(", "),
    };
    let condition = config.configuration.as_ref();
    let reason = condition.and_then(|condition| condition.reason.as_ref());
    Rows::new()
        .value("VM:", name)
        .value("Declarations:", declarations)
        .optional("Configured:", config.configured.map(ConfigState::as_str))
        .optional("Since:", condition.map(|condition| condition.since))
        .optional("Reason:", reason)
        .optional("Problem:", config.problem.as_ref())
}

fn fields(config: &VmConfig) -> Rows {
    let table = Rows::with_header(&["FIELD", "VALUE", "FROM"]);
    config.origins.iter().fold(table, |table, origin| {
        table.row([origin.field.clone(), value(config, &origin.field), origin.from.clone()])
    })
}

fn ranks(explanation: &ConfigExplanation) -> Rows {
    let table = Rows::with_header(&["DECLARATION", "MATCHES AS"]);
    let declarations = explanation.declarations.iter();
    declarations.fold(table, |table, one| table.row([one.name.clone(), one.rank.clone()]))
}

fn candidates(explanation: &ConfigExplanation) -> Rows {
    let table = Rows::with_header(&["FIELD", "DECLARED BY", "AS", "DECIDES"]);
    let all = explanation.fields.iter().flat_map(|one| {
        one.candidates.iter().enumerate().map(move |(at, candidate)| (&one.field, at, candidate))
    });
    all.fold(table, |table, (field, at, FieldCandidate { from, value })| {
        let decides = if at == 0 { "yes" } else { "no" };
        table.row([field.clone(), from.clone(), value.clone(), decides.to_owned()])
    })
}

fn value(config: &VmConfig, field: &str) -> String {
    if let Some(key) = field.strip_prefix("labels.") {
        return config.labels.get(key).cloned().unwrap_or_default();
    }
    if field == "drift" {
        return config.drift.as_str().to_owned();
    }
    if field == "clock_limit_ms" {
        return config.clock_limit_ms.map(|limit| limit.to_string()).unwrap_or_default();
    }
    if let ("restore", Some(restore)) = (field, &config.restore) {
        return steps(restore);
    }
    let Some(network) = &config.network else { return "-".to_owned() };
    of_network(network, field)
}

/// Lists restore steps; those that are required have an exclamation mark.
fn steps(DeclaredRestore { steps, required, .. }: &DeclaredRestore) -> String {
    let default = ["entropy", "clock"].map(str::to_owned).to_vec();
    let steps = steps.clone().unwrap_or(default).into_iter();
    let marked = steps.map(|step| if required.contains(&step) { format!("{step}!") } else { step });
    marked.collect::<Vec<_>>().join(", ")
}

fn of_network(network: &NetworkRequest, field: &str) -> String {
    let NetworkRequest { interfaces, dns, routes, search, mtu, hostname, verify, .. } = network;
    let joined = |list: Vec<String>| list.join(", ");
    match field {
        "hostname" => hostname.clone().unwrap_or_default(),
        "network.dns" => joined(dns.clone()),
        "network.search" => joined(search.clone().unwrap_or_default()),
        "network.routes" => joined(routes.iter().flatten().map(|route| route.to.clone()).collect()),
        "network.verify" => {
            joined(verify.iter().flatten().map(|check| check.as_str().to_owned()).collect())
        }
        "network.gateway" => {
            joined(interfaces.iter().flat_map(|one| one.gateways.clone()).collect())
        }
        "network.mtu" => {
            let own = interfaces.iter().filter_map(|one| one.mtu);
            mtu.iter().copied().chain(own).next().map(|mtu| mtu.to_string()).unwrap_or_default()
        }
        _ => joined(
            interfaces.iter().flat_map(|one| one.addresses.clone().unwrap_or_default()).collect(),
        ),
    }
}
