//! The clock that starts with the guest's kernel. It also counts time in suspend, and cannot be set.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Returns the time since the guest's boot.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}

/// Returns the time since the guest's boot in milliseconds.
pub(crate) fn now_ms() -> u64 {
    milliseconds(now())
}

/// Converts a duration to whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
