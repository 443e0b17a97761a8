//! `minionsctl version`: versions of minionsctl, minionsd and the agents.

use super::context::Context;
use super::ls;
use crate::agent;
use crate::cli::SelectorArgs;
use crate::client::DaemonClient;
use crate::config::ClientConfig;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::service::Version;
use minions_proto::message::HealthCheck;
use serde::Serialize;
use std::collections::BTreeMap;

/// VersionReport of all parts.
#[derive(Debug, Serialize)]
struct VersionReport {
    client: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Version>,
    /// Agents by their version.
    #[serde(skip_serializing_if = "Option::is_none")]
    agents: Option<Vec<AgentVersion>>,
}

/// A version of the agent, and the VMs that have it.
#[derive(Debug, Serialize)]
struct AgentVersion {
    /// Version; `base` for an agent that supports only the base protocol.
    version: String,
    /// Protocol of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u32>,
    /// VMs, sorted by name. Empty with `--socket`.
    vms: Vec<String>,
}

pub(super) async fn run(
    context: &Context<'_>,
    config: &ClientConfig,
    only_client: bool,
) -> Result<ExitStatus, Failure> {
    let mut versions = VersionReport { client: ours(), server: None, agents: None };
    let asked = if only_client { Ok(()) } else { ask(context, config, &mut versions).await };
    context.printer.result(&versions, table)?;
    asked.map(|()| ExitStatus::Success)
}

fn ours() -> Version {
    Version {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: minions_proto::version::PROTOCOL,
    }
}

/// Asks minionsd, or the agent of `--socket`.
async fn ask(
    context: &Context<'_>,
    config: &ClientConfig,
    versions: &mut VersionReport,
) -> Result<(), Failure> {
    if let Some(address) = &config.agent {
        let health = agent::call(address, &HealthCheck {}, context.quick_direct()).await?.reply;
        let (version, protocol) = match health.agent {
            Some(agent) => (agent.version, Some(agent.protocol)),
            None => ("base".into(), None),
        };
        versions.agents = Some(vec![AgentVersion { version, protocol, vms: Vec::new() }]);
        return Ok(());
    }
    let client = DaemonClient::new(config)?;
    versions.server = Some(client.get("/version", Context::registry()).await?);
    let mut agents = BTreeMap::<_, Vec<String>>::new();
    for vm in ls::selected(&client, &SelectorArgs::default()).await?.vms {
        let protocol = vm.agent.as_ref().map(|agent| agent.protocol);
        agents.entry((ls::agent(&vm), protocol)).or_default().push(vm.name.to_string());
    }
    let agents = agents.into_iter().filter(|((version, _), _)| version != "-");
    let agents = agents.map(|((version, protocol), vms)| AgentVersion { version, protocol, vms });
    versions.agents = Some(agents.collect());
    Ok(())
}

fn table(versions: &VersionReport) -> Rows {
    let row = |name: &str, version: &str, protocol: Option<u32>, vms: String| {
        let protocol = protocol.map_or_else(|| "-".into(), |protocol| protocol.to_string());
        [name.to_owned(), version.to_owned(), protocol, vms]
    };
    let mut rows = Rows::with_header(&["PROGRAM", "VERSION", "PROTOCOL", "VMS"]);
    for program in [Some(&versions.client), versions.server.as_ref()].into_iter().flatten() {
        rows =
            rows.row(row(&program.name, &program.version, Some(program.protocol), String::new()));
    }
    for agent in versions.agents.iter().flatten() {
        let vms = match agent.vms.len() {
            0 => String::new(),
            count => count.to_string(),
        };
        rows = rows.row(row("minions-agent", &agent.version, agent.protocol, vms));
    }
    rows
}
