//! `POST /vms/{vm}/quiesce` and `/thaw`.

pub use minions_proto::message::{FrozenFilesystem, HookRun};

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// Request to quiesce a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QuiesceRequest {
    /// Lease in milliseconds, after which the agent thaws the guest by itself. Absent: 30,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1000, maximum = 600_000, example = 1000))]
    pub ttl_ms: Option<u64>,
    /// Freezes the file systems: programs that write to them wait until the thaw. Otherwise, the file systems are only
    /// synced.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(example = false))]
    pub freeze_fs: bool,
    /// Runs the hooks in `/etc/minions/freeze.d` before, and those in `/etc/minions/thaw.d` after the thaw.
    #[serde(default = "yes")]
    #[cfg_attr(feature = "openapi", schema(default = true))]
    pub hooks: bool,
}

fn yes() -> bool {
    true
}

impl Default for QuiesceRequest {
    fn default() -> Self {
        Self { ttl_ms: None, freeze_fs: false, hooks: true }
    }
}

/// A guest that is quiesced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestQuiesced {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Id of this quiesce, for the query parameter `id` of `thaw`. Written by the guest.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "quiesce-6c1b1f9a-8a53-4f0e-9b6e-3b1c1f0f7a52")
    )]
    pub id: String,
    /// Milliseconds until the lease ends.
    pub lease_ms: u64,
    /// End of the lease on the host's clock.
    pub quiesced_until: Timestamp,
    /// Frozen file systems, in the order in which they were frozen.
    pub frozen: Vec<FrozenFilesystem>,
    /// File systems on block devices that are not frozen: the guest's kernel cannot freeze them, or other mounts hide
    /// them.
    pub not_frozen: Vec<FrozenFilesystem>,
    /// Hooks that were run.
    pub hooks: Vec<HookRun>,
}

/// A guest that was thawed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestThawed {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Id of the quiesce that ended. Written by the guest.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "quiesce-6c1b1f9a-8a53-4f0e-9b6e-3b1c1f0f7a52")
    )]
    pub id: String,
    /// Milliseconds for which the guest was quiesced.
    pub quiesced_ms: u64,
    /// Mount points of the file systems that were thawed.
    pub thawed: Vec<String>,
    /// Hooks that were run after the thaw. A failed one does not make the call fail.
    pub hooks: Vec<HookRun>,
    /// True if an earlier request had ended this quiesce: this is a repetition of the reply to it. If the caller has not
    /// sent that request, the quiesce ended earlier than the caller needed.
    #[serde(default)]
    pub already: bool,
}
