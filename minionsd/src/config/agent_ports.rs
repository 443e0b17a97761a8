//! VSOCK ports of agents, by the names of their VMs.

use super::error::ConfigError;
use minions_api::VmName;
use minions_api::VmPattern;
use minions_proto::AgentPort;
use serde::Deserialize;

/// Ports of the agents of all VMs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentPorts {
    /// Port for VMs without a rule.
    pub default: AgentPort,
    /// Rules by VM name; the first match applies.
    pub rules: Vec<PortRule>,
}

/// Port of the agents of some VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule {
    /// Names of the VMs.
    pub vms: VmPattern,
    /// Their agents' port.
    pub port: AgentPort,
}

/// Entry of `agent_ports` in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortEntry {
    vms: String,
    port: i64,
}

impl AgentPorts {
    /// Returns the port of the agent in `vm`.
    #[must_use]
    pub fn of(&self, vm: &VmName) -> AgentPort {
        let rule = self.rules.iter().find(|rule| rule.vms.matches(vm));
        rule.map_or(self.default, |rule| rule.port)
    }

    /// Checks the settings of the file. `flag` overrides `agent_port`.
    pub(super) fn parse(
        flag: Option<AgentPort>,
        agent_port: Option<i64>,
        entries: Vec<PortEntry>,
    ) -> Result<Self, ConfigError> {
        let in_file = agent_port.map(|number| port("agent_port".to_owned(), number)).transpose()?;
        let rules = entries.into_iter().enumerate().map(|(index, entry)| {
            let vms = entry.vms.parse().map_err(|source| ConfigError::InvalidPattern {
                field: format!("agent_ports[{index}].vms"),
                pattern: entry.vms.clone(),
                source,
            })?;
            Ok(PortRule { vms, port: port(format!("agent_ports[{index}].port"), entry.port)? })
        });
        let rules = rules.collect::<Result<_, ConfigError>>()?;
        Ok(Self { default: flag.or(in_file).unwrap_or_default(), rules })
    }
}

fn port(field: String, number: i64) -> Result<AgentPort, ConfigError> {
    AgentPort::try_from(number).map_err(|source| ConfigError::InvalidPort { field, number, source })
}
