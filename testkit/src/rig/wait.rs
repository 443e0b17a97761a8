//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::RigError;

/// How often a condition is looked at: short against a boot (seconds), long against a look (µs).
const POLL: Duration = Duration::from_millis(20);

/// Calls `condition` until it gives a value, for at most `timeout`.
///
/// # Errors
///
/// [`RigError::TimedOut`] naming `what`; an error of `condition` itself ends the wait at once.
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
