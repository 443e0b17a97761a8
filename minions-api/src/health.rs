//! `GET /vms/{vm}/health`.

use serde::{Deserialize, Serialize};

/// The agent's answer, fresh from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Whole seconds since the guest's kernel started.
    pub uptime_secs: u64,
    /// The guest kernel's hostname. Guest-made.
    pub hostname: String,
    /// Who answers. Absent for a base agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// How far the guest's clock is ahead of the host's, in milliseconds; negative if it is behind.
    /// Right to half of the time that the call took. Absent if the agent doesn't tell the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentInfo {
    /// `minions-agent`, or another implementation's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The wire protocol that it speaks.
    pub protocol: u32,
    /// What it can do beyond that number. What it refuses is not in it.
    pub features: Vec<String>,
    /// The operations that it serves, if it was started without some of them (`minions-agent --allow`): `health`,
    /// `status`, `network`, `exec`, `write_file`, `clock`, `power`. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// Changes when the guest reboots.
    pub boot_id: String,
    /// Changes when the agent restarts.
    pub instance_id: String,
}
