//! `health_check`: the agent's liveness and identity.

use super::bounded;
use super::call::Call;
use super::feature::{Feature, Features};
use super::generation::RestoreState;
use super::identity::{BootId, InstanceId};
use super::quiesce::QuiesceLease;
use serde::{Deserialize, Serialize};

/// Request for the agent's health. It also negotiates the protocol: the reply lists the agent's
/// features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthCheck {}

impl Call for HealthCheck {
    type Reply = Health;
    const TYPE: &'static str = "health_check";
    const IDEMPOTENT: bool = true;
}

/// Reply to [`HealthCheck`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Seconds since the guest's kernel started, rounded down, including suspend.
    pub uptime_secs: u64,
    /// Hostname of the guest's kernel. Written by the guest.
    pub hostname: String,
    /// Agent that answered. Absent for a base agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// Guest's clock at the time of the reply, in milliseconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_unix_ms: Option<u64>,
    /// Lease of a [`Quiesce`](super::Quiesce). Absent: the guest is not quiesced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesced: Option<QuiesceLease>,
    /// Number of changes of interfaces, addresses and routes that the agent has noticed since its start, its own and
    /// all others; changes within 100 ms may count as one. Absent if the kernel does not report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_changes: Option<u64>,
}

/// Self-description of an agent, from protocol 2 on. Written by the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Name of the implementation, usually `minions-agent`.
    pub name: String,
    /// Version of the agent, for people.
    pub version: String,
    /// Protocol that the agent speaks; see [`crate::version::PROTOCOL`].
    pub protocol: u32,
    /// Capabilities beyond that protocol; at most 256.
    #[serde(default)]
    pub features: Features,
    /// Id of the guest's boot.
    pub boot_id: BootId,
    /// Id of the agent's start.
    pub instance_id: InstanceId,
    /// Operations that the agent serves, by their names in [`OPERATIONS`], if it was started
    /// without some of them; at most 256. Absent: all.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<256, _, _>"
    )]
    pub allowed: Option<Vec<String>>,
    /// Number of the guest's generation: 0 for a guest that was not restored since the agent's
    /// start. Absent without the feature `generations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Instance of which this is the next generation. Absent for generation 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_instance_id: Option<InstanceId>,
    /// Number of [`TokenCheck`](super::TokenCheck)s that the agent has answered since its start, including
    /// this one; 0 in replies before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_count: Option<u64>,
    /// State of the restore. Absent for a guest that was not restored since the agent's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreState>,
}

/// Names of the operations that an agent can be restricted to (`minions-agent --allow`).
pub const OPERATIONS: [&str; 10] = [
    "health",
    "status",
    "network",
    "exec",
    "write_file",
    "clock",
    "power",
    "files",
    "forward",
    "quiesce",
];

impl AgentInfo {
    /// Reports whether the agent announces this feature.
    #[must_use]
    pub fn supports(&self, feature: Feature) -> bool {
        self.features.supports(feature)
    }

    /// Reports whether the agent serves this operation, according to itself.
    #[must_use]
    pub fn allows(&self, operation: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == operation))
    }
}
