//! `health_check`: is the agent alive, and what is it?

use super::{Call, bounded};
use serde::{Deserialize, Serialize};

/// The request. Also the protocol's negotiation: the reply says what the agent knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthCheck {}

impl Call for HealthCheck {
    type Reply = Health;
    const TYPE: &'static str = "health_check";
    const IDEMPOTENT: bool = true;
}

/// The reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whole seconds since the guest's kernel started, suspend included.
    pub uptime_secs: u64,
    /// The kernel's hostname. Guest-made.
    pub hostname: String,
    /// Who answers. Absent from a base agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// The guest's clock when it answered, in milliseconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_unix_ms: Option<u64>,
}

/// What an agent of protocol 2 or later says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// `minions-agent`, or another implementation's name.
    pub name: String,
    /// The agent's own version, for people.
    pub version: String,
    /// The protocol it speaks: [`crate::version::PROTOCOL`].
    pub protocol: u32,
    /// What it can do beyond its protocol number, by name; at most 256.
    #[serde(default, deserialize_with = "bounded::list::<256, _, _>")]
    pub features: Vec<String>,
    /// The guest kernel's `/proc/sys/kernel/random/boot_id`: changes when the guest reboots.
    pub boot_id: String,
    /// Minted when the agent starts: changes when the agent restarts. With `boot_id` it is the
    /// VM's incarnation.
    pub instance_id: String,
    /// The operations that this agent serves, by their names in [`OPERATIONS`], if it was started without some of
    /// them; at most 256. Absent: all.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<256, _, _>"
    )]
    pub allowed: Option<Vec<String>>,
}

/// Names of the operations that an agent can be restricted to (`minions-agent --allow`).
pub const OPERATIONS: [&str; 7] =
    ["health", "status", "network", "exec", "write_file", "clock", "power"];

impl AgentInfo {
    /// Whether the agent serves this operation, as far as it says.
    #[must_use]
    pub fn allows(&self, operation: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == operation))
    }
}
