//! Restores of a guest from a snapshot: `POST /vms/{vm}/restored`, and `restore` in `GET /vms/{vm}`.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

pub use minions_proto::message::{RestoreState, RestoreStep};

/// Request to treat the guest as restored. It has no fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RestoredRequest {}

/// Restore of a guest: its generation, and the results of the restore steps. Written by the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RestoreReport {
    /// State of the restore. `failed`: a required step failed, and the VM is not ready.
    pub state: RestoreState,
    /// Number of the generation: 1 after the first restore.
    pub generation: u64,
    /// Instance id of the generation.
    pub instance_id: String,
    /// Instance id of the guest that was saved.
    pub parent_instance_id: String,
    /// Results of the steps, in their order.
    pub steps: Vec<RestoreStep>,
    /// Time at which the daemon received the report.
    pub at: Timestamp,
}
