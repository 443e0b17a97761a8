//! Durations on the command line: `500ms`, `2m 30s`, `10` (seconds).

use std::time::Duration;

/// Parses a duration of at least one millisecond.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let with_unit = if is_number { format!("{text}s") } else { text.to_owned() };
    let duration = humantime::parse_duration(&with_unit)
        .map_err(|error| format!("{error}; for example 500ms, 10s or 5m"))?;
    if duration < Duration::from_millis(1) {
        return Err("must be at least 1ms".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_unit_means_seconds() {
        for (text, ms) in [("1", 1000), ("10s", 10_000), ("500ms", 500), ("2m 30s", 150_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "0", "0s", "x", "-1", "1.5", "1 parsec"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
