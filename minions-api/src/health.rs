//! `GET /vms/{vm}/health`.

use crate::restore::RestoreState;
use crate::timestamp::Timestamp;
use minions_proto::message::Features;
use serde::{Deserialize, Serialize};

/// Health of a guest, as its agent reports it at the time of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Seconds since the guest's kernel started, rounded down.
    pub uptime_secs: u64,
    /// Hostname of the guest's kernel. Written by the guest.
    pub hostname: String,
    /// Agent that answered. Absent for a base agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// Offset of the guest's clock from the host's, in milliseconds; negative if the guest's clock
    /// is slow. The uncertainty is half of the duration of the call. Absent if the agent does not
    /// report its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// Opaque id of boot and instance, for `If-Incarnation`. Absent for a base agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation_id: Option<String>,
    /// End of the lease of a quiesce, on the host's clock. Absent: the guest is not quiesced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesced_until: Option<Timestamp>,
}

/// Self-description of an agent. Written by the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentInfo {
    /// Name of the implementation, usually `minions-agent`.
    pub name: String,
    /// Version of the agent.
    pub version: String,
    /// Wire protocol that the agent speaks.
    pub protocol: u32,
    /// Capabilities beyond that protocol, without those that the agent refuses.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub features: Features,
    /// Operations that the agent serves, if it was started without some of them (`minions-agent
    /// --allow`): `health`, `status`, `network`, `exec`, `write_file`, `clock`, `power`, `files`,
    /// `forward`, `quiesce`. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// Id of the guest's boot; changes when the guest reboots.
    pub boot_id: String,
    /// Id of the agent's start; changes when the agent restarts, and when the guest is restored or
    /// cloned.
    pub instance_id: String,
    /// Number of the guest's generation: 0 for a guest that was not restored since the agent's
    /// start. Absent for an agent without the feature `generations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Instance id of the guest that was saved. Absent for generation 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_instance_id: Option<String>,
    /// State of the restore. Absent for generation 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreState>,
}
