//! `quiesce` and `thaw`: a guest whose file systems are consistent on their disks, for a snapshot (feature `quiesce`).
//!
//! The state has a lease: the agent ends it by itself when the time is over.

use super::bounded;
use super::call::Call;
use crate::error::Invalid;
use serde::{Deserialize, Serialize};

/// Lease of a [`Quiesce`] without [`ttl_ms`](Quiesce::ttl_ms), in milliseconds.
pub const DEFAULT_TTL_MS: u64 = 30 * 1000;

/// Shortest lease, in milliseconds.
pub const MIN_TTL_MS: u64 = 1000;

/// Longest lease, in milliseconds: ten minutes. Programs that write to a frozen file system wait for its whole time.
pub const MAX_TTL_MS: u64 = 10 * 60 * 1000;

/// Longest list in a reply.
const MAX_LISTED: usize = 256;

/// Request to bring the guest's file systems into a consistent state and to keep it until the lease ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesce {
    /// Lease in milliseconds, [`MIN_TTL_MS`] to [`MAX_TTL_MS`]. Absent: [`DEFAULT_TTL_MS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Freezes the file systems: until the end of the lease, all programs that write to them wait. Without it, the
    /// file systems are only synced.
    #[serde(default)]
    pub freeze_fs: bool,
    /// Runs the hooks of the guest's owner before the freeze and after the thaw.
    #[serde(default = "yes")]
    pub hooks: bool,
}

fn yes() -> bool {
    true
}

impl Default for Quiesce {
    fn default() -> Self {
        Self { ttl_ms: None, freeze_fs: false, hooks: true }
    }
}

impl Quiesce {
    /// Returns the lease in milliseconds.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `ttl_ms`.
    pub fn ttl_ms(&self) -> Result<u64, Invalid> {
        let ttl_ms = self.ttl_ms.unwrap_or(DEFAULT_TTL_MS);
        if (MIN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms) {
            return Ok(ttl_ms);
        }
        let reason = format!(
            "is {ttl_ms}: must be {MIN_TTL_MS} to {MAX_TTL_MS} milliseconds (one second to ten minutes)"
        );
        Err(Invalid::new("ttl_ms", reason))
    }
}

impl Call for Quiesce {
    type Reply = Quiesced;
    const TYPE: &'static str = "quiesce";
    // A repetition is refused, because the guest is quiesced already.
    const IDEMPOTENT: bool = false;
}

/// Lease of a quiesce, as of the time of the reply that contains it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuiesceLease {
    /// Id of the quiesce, for [`Thaw::id`].
    pub id: String,
    /// Milliseconds until the lease ends.
    pub lease_ms: u64,
}

/// Reply to [`Quiesce`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesced {
    /// Id of this quiesce, for [`Thaw::id`].
    pub id: String,
    /// Milliseconds until the lease ends.
    pub lease_ms: u64,
    /// Frozen file systems, in the order in which they were frozen. At most 256, as all lists here.
    #[serde(default, deserialize_with = "bounded::list::<MAX_LISTED, _, _>")]
    pub frozen: Vec<FrozenFilesystem>,
    /// File systems on block devices that are not frozen: the kernel cannot freeze them, or other mounts hide them.
    #[serde(default, deserialize_with = "bounded::list::<MAX_LISTED, _, _>")]
    pub not_frozen: Vec<FrozenFilesystem>,
    /// Hooks that were run.
    #[serde(default, deserialize_with = "bounded::list::<MAX_LISTED, _, _>")]
    pub hooks: Vec<HookRun>,
}

/// File system of a guest, in the reply to [`Quiesce`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FrozenFilesystem {
    /// Mount point, as the guest's kernel reports it.
    #[cfg_attr(feature = "openapi", schema(example = "/"))]
    pub mount_point: String,
    /// Type of the file system.
    #[cfg_attr(feature = "openapi", schema(example = "ext4"))]
    pub fs_type: String,
}

/// Hook that the agent ran. `path` and `detail` are written by the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HookRun {
    /// Path of the program in the guest.
    #[cfg_attr(feature = "openapi", schema(example = "/etc/minions/freeze.d/10-database"))]
    pub path: String,
    /// True if the hook exited with status 0.
    pub ok: bool,
    /// End of the hook, with the end of its standard error if it failed.
    #[cfg_attr(feature = "openapi", schema(example = "exited with status 0"))]
    pub detail: String,
    /// Milliseconds from start to exit.
    pub duration_ms: u64,
}

/// Request to end a quiesce before its lease does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Thaw {
    /// Ends only the quiesce with this id; a repetition gets the same reply with [`Thawed::already`]. Absent: ends any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl Call for Thaw {
    type Reply = Thawed;
    const TYPE: &'static str = "thaw";
    // Without an id, a repetition is refused, because the guest is not quiesced any more.
    const IDEMPOTENT: bool = false;
}

/// Reply to [`Thaw`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thawed {
    /// Id of the quiesce that ended.
    pub id: String,
    /// Milliseconds for which the guest was quiesced.
    pub quiesced_ms: u64,
    /// Mount points of the file systems that were thawed.
    #[serde(default, deserialize_with = "bounded::list::<MAX_LISTED, _, _>")]
    pub thawed: Vec<String>,
    /// Hooks that were run after the thaw.
    #[serde(default, deserialize_with = "bounded::list::<MAX_LISTED, _, _>")]
    pub hooks: Vec<HookRun>,
    /// True if an earlier request had ended the quiesce: this is a repetition of the reply to it. A requester that has not
    /// sent such a request must not rely on the quiesce having lasted until now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_a_year_or_of_no_time_is_refused_with_the_permitted_range() {
        let of = |ttl_ms| Quiesce { ttl_ms, ..Quiesce::default() }.ttl_ms();
        assert_eq!(of(None), Ok(30_000));
        assert_eq!(of(Some(600_000)), Ok(600_000));
        for wrong in [0, 999, 600_001, 31_536_000_000, u64::MAX] {
            let error = of(Some(wrong)).unwrap_err();
            assert_eq!(error.field, "ttl_ms");
            assert!(error.reason.contains("1000 to 600000 milliseconds"), "{}", error.reason);
        }
    }

    #[test]
    fn hooks_run_unless_the_request_says_otherwise() {
        let request: Quiesce = serde_json::from_str("{}").unwrap();
        assert_eq!(request, Quiesce::default());
        assert!(request.hooks && !request.freeze_fs);
    }
}
