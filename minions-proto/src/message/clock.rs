//! `set_clock`: sets the guest's clock, which is late after a pause or a restored snapshot.

use super::call::Call;
use serde::{Deserialize, Serialize};

/// Earliest time that a clock can be set to, in milliseconds since 1970: 2020-01-01. An earlier
/// time comes from a host without a clock, or from a mistake in the unit.
pub const MIN_TIME_MS: u64 = 1_577_836_800_000;

/// Latest time that a clock can be set to: 2200-01-01. ext4 and 64-bit kernels support later times,
/// but much other software does not.
pub const MAX_TIME_MS: u64 = 7_258_118_400_000;

/// Request to set the guest's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetClock {
    /// The time to set, in milliseconds since 1970 (UTC), [`MIN_TIME_MS`] to [`MAX_TIME_MS`].
    pub time_unix_ms: u64,
}

impl SetClock {
    /// Checks the bounds of the time.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::Invalid) for `time_unix_ms`.
    pub fn validate(self) -> Result<Self, crate::error::Invalid> {
        if (MIN_TIME_MS..=MAX_TIME_MS).contains(&self.time_unix_ms) {
            return Ok(self);
        }
        let reason = format!(
            "is {}: must be milliseconds since 1970, {MIN_TIME_MS} (2020) to {MAX_TIME_MS} (2200)",
            self.time_unix_ms
        );
        Err(crate::error::Invalid::new("time_unix_ms", reason))
    }
}

impl Call for SetClock {
    type Reply = ClockSet;
    const TYPE: &'static str = "set_clock";
    // A repetition would set the time at which the first request was sent.
    const IDEMPOTENT: bool = false;
}

/// Reply to [`SetClock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSet {
    /// Step of the clock, in milliseconds; negative if the clock was fast.
    pub step_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_microseconds_are_rejected() {
        let now = 1_795_000_000_000;
        assert!(SetClock { time_unix_ms: now }.validate().is_ok());
        for wrong in [0, now / 1000, now * 1000, u64::MAX] {
            let error = SetClock { time_unix_ms: wrong }.validate().unwrap_err();
            assert_eq!(error.field, "time_unix_ms");
        }
    }
}
