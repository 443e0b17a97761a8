//! What a change came to.

use super::Check;
use crate::message::{Call, Done, bounded};
use serde::{Deserialize, Serialize};

/// The reply to both forms of `configure_network`. A base agent sends the message only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChanged {
    /// For people.
    pub message: String,
    /// Whether anything is, or with `dry_run` would be, different from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
    /// What is different; at most 1024.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<1024, _, _>"
    )]
    pub changes: Option<Vec<NetworkDiff>>,
    /// Who has the name servers now: `resolv_conf`, `systemd_resolved`, `network_manager`. Absent if
    /// the request had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_owner: Option<String>,
    /// Checks that had something to check and passed.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<16, _, _>"
    )]
    pub verified: Option<Vec<Check>>,
    /// Risks to a change that was made; at most 64. Guest-made.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional_list::<64, _, _>"
    )]
    pub warnings: Option<Vec<String>>,
    /// The change waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// One difference. Without `from` something is added, without `to` it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDiff {
    /// `link`, `mtu`, `network_manager`, `accept_ra`, `address`, `route`, `dns`, `search`, `hostname`.
    pub what: String,
    /// Of which interface, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// As it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// As it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A change that is put back unless it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingChange {
    /// For `network_confirm`.
    pub id: String,
    /// Milliseconds left.
    pub expires_in_ms: u64,
}

/// `network_confirm`: the change may stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfirm {
    /// The pending change's.
    pub id: String,
}

/// The longest id of a change, in characters: an agent's own are far shorter.
const MAX_CHANGE_ID: usize = 128;

impl NetworkConfirm {
    /// Checks the id's length.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::Invalid) for `id`.
    pub fn validate(self) -> Result<Self, crate::Invalid> {
        match self.id.chars().count() {
            1..=MAX_CHANGE_ID => Ok(self),
            len => Err(crate::Invalid::new(
                "id",
                format!(
                    "has {len} characters: must be 1 to {MAX_CHANGE_ID}, as the change's reply had it"
                ),
            )),
        }
    }
}

impl Call for NetworkConfirm {
    type Reply = Done;
    const TYPE: &'static str = "network_confirm";
    // The agent remembers the last one that it was told.
    const IDEMPOTENT: bool = true;
}
