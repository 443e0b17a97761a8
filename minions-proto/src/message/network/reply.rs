//! Result of a network change, and its confirmation.

use super::check::Check;
use crate::message::bounded;
use crate::message::call::Call;
use crate::message::reply::Done;
use serde::{Deserialize, Serialize};

/// Reply to both forms of `configure_network`. A base agent sends only the message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChanged {
    /// Text for people.
    pub message: String,
    /// True if the change made a difference, or with `dry_run` would make one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
    /// Differences; at most 1024.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<1024, _, _>"
    )]
    pub changes: Option<Vec<NetworkDiff>>,
    /// Owner of the name servers: `resolv_conf`, `systemd_resolved`, `network_manager`. Absent if
    /// the request had no name servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_owner: Option<String>,
    /// Checks that had something to check, and passed.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<16, _, _>"
    )]
    pub verified: Option<Vec<Check>>,
    /// Risks to the applied change; at most 64. Written by the guest.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<64, _, _>"
    )]
    pub warnings: Option<Vec<String>>,
    /// Deadline and id for the confirmation, if the change needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// Difference between the old and the new configuration. Without `from` something is added, without
/// `to` it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkDiff {
    /// Kind of setting: `link`, `mtu`, `network_manager`, `accept_ra`, `address`, `route`, `dns`,
    /// `search`, `hostname`.
    #[cfg_attr(feature = "openapi", schema(example = "address"))]
    pub what: String,
    /// Name of the interface, if the setting belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub interface: Option<String>,
    /// Old value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// New value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.2/16"))]
    pub to: Option<String>,
}

/// Network change that is rolled back unless it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PendingChange {
    /// Id for `POST /vms/{vm}/network/confirm`, or for `network_confirm` on the wire.
    pub id: String,
    /// Milliseconds that were left when the agent answered.
    pub expires_in_ms: u64,
}

/// Confirmation of a network change, which makes it permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfirm {
    /// Id of the pending change.
    pub id: String,
}

/// Longest id of a change, in characters; the agent's own ids are far shorter.
const MAX_CHANGE_ID: usize = 128;

impl NetworkConfirm {
    /// Checks the id's length.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::Invalid) for `id`.
    pub fn validate(self) -> Result<Self, crate::error::Invalid> {
        match self.id.chars().count() {
            1..=MAX_CHANGE_ID => Ok(self),
            len => Err(crate::error::Invalid::new(
                "id",
                format!(
                    "has {len} characters: must be 1 to {MAX_CHANGE_ID}; use the id in the change's reply"
                ),
            )),
        }
    }
}

impl Call for NetworkConfirm {
    type Reply = Done;
    const TYPE: &'static str = "network_confirm";
    // The agent remembers the last confirmed id.
    const IDEMPOTENT: bool = true;
}
