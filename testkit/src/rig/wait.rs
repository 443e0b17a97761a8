//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::error::RigError;

/// Interval of the checks: short compared with a boot (seconds), long compared with a check (µs).
const POLL: Duration = Duration::from_millis(20);

/// Calls `condition` until it returns a value, for at most `timeout`.
///
/// # Errors
///
/// [`RigError::TimedOut`] with the description `what`, a clause; an error of `condition` ends the wait at once.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<T>, RigError>,
) -> Result<T, RigError> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            let what = what.to_owned();
            return Err(RigError::TimedOut { what, timeout, serial: String::new() });
        }
        thread::sleep(POLL);
    }
}
