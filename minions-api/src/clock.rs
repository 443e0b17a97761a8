//! `PUT /vms/{vm}/clock`.

use serde::{Deserialize, Serialize};

/// Time to set in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClockRequest {
    /// Time in milliseconds since 1970-01-01 UTC, from 2020-01-01 to 2200-01-01. Absent: the host's
    /// time at the moment of the call to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1_577_836_800_000_i64, maximum = 7_258_118_400_000_i64)
    )]
    pub time_unix_ms: Option<u64>,
}

/// Result of setting the guest's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClockSet {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Step of the clock, in milliseconds; negative if the clock was fast.
    pub step_ms: i64,
}
