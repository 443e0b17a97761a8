//! `set_clock`: a guest that was paused or restored believes that no time has passed.

use super::Call;
use serde::{Deserialize, Serialize};

/// The name under which an agent's features tell that it knows this request, and that its health
/// replies say what time it is.
pub const CLOCK_FEATURE: &str = "clock";

/// The earliest time that a clock is set to, in milliseconds since 1970: 2020-01-01. What is earlier
/// is a host without a clock, or a mistake in the unit.
pub const MIN_TIME_MS: u64 = 1_577_836_800_000;

/// The latest: 2200-01-01. ext4 and 64-bit kernels go further, much other software doesn't.
pub const MAX_TIME_MS: u64 = 7_258_118_400_000;

/// The request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetClock {
    /// The time to set, in milliseconds since 1970 (UTC), [`MIN_TIME_MS`] to [`MAX_TIME_MS`].
    pub time_unix_ms: u64,
}

impl SetClock {
    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::Invalid) for `time_unix_ms`.
    pub fn validate(self) -> Result<Self, crate::Invalid> {
        if (MIN_TIME_MS..=MAX_TIME_MS).contains(&self.time_unix_ms) {
            return Ok(self);
        }
        let reason = format!(
            "is {}: must be milliseconds since 1970, {MIN_TIME_MS} (2020) to {MAX_TIME_MS} (2200)",
            self.time_unix_ms
        );
        Err(crate::Invalid::new("time_unix_ms", reason))
    }
}

impl Call for SetClock {
    type Reply = ClockSet;
    const TYPE: &'static str = "set_clock";
    // A second one would set the time at which the first was sent.
    const IDEMPOTENT: bool = false;
}

/// The reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSet {
    /// How far the clock was moved, in milliseconds; negative if it was fast.
    pub step_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_microseconds_are_not_taken_for_milliseconds() {
        let now = 1_795_000_000_000;
        assert!(SetClock { time_unix_ms: now }.validate().is_ok());
        for wrong in [0, now / 1000, now * 1000, u64::MAX] {
            let error = SetClock { time_unix_ms: wrong }.validate().unwrap_err();
            assert_eq!(error.field, "time_unix_ms");
        }
    }
}
