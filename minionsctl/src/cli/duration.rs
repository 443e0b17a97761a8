//! Durations on the command line: `500ms`, `2m 30s`.

use std::time::Duration;

/// Parses a duration of at least one millisecond.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(1) {
        return Err("must be at least 1ms".into());
    }
    Ok(duration)
}
