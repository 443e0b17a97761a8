//! `PUT /vms/{vm}/clock`.

use serde::{Deserialize, Serialize};

/// What time the guest shall believe it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClockRequest {
    /// Milliseconds since 1970 (UTC), from 2020 to 2200. Absent: the host's own time, when the agent
    /// is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1_577_836_800_000_i64, maximum = 7_258_118_400_000_i64)
    )]
    pub time_unix_ms: Option<u64>,
}

/// The guest's clock was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClockSet {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// How far it was moved, in milliseconds; negative if it was fast.
    pub step_ms: i64,
}
