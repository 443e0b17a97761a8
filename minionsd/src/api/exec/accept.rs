//! Choice of the reply's form by the caller's `Accept` (RFC 9110, 12.5.1).

use axum::http::{HeaderMap, header};
use minions_api::exec::NDJSON;

/// Default weight, in thousandths: `q` values have at most three digits.
const FULL_WEIGHT: u16 = 1000;

/// Reports whether the caller names NDJSON and does not prefer JSON to it. A wildcard does not count: curl and browsers
/// send one without expecting a stream.
pub(super) fn prefers_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let ranges = accepted.filter_map(|accept| accept.to_str().ok()).flat_map(|all| all.split(','));
    let (mut lines, mut json) = (0, 0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(FULL_WEIGHT);
        if essence.eq_ignore_ascii_case(NDJSON) {
            lines = lines.max(weight);
        } else if essence.eq_ignore_ascii_case("application/json") {
            json = json.max(weight);
        }
    }
    lines > 0 && lines >= json
}

/// Returns the value of a `q` parameter in thousandths; 0 if it is malformed.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim().parse().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    Some((value.clamp(0.0, 1.0) * f32::from(FULL_WEIGHT)).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn asks_for_lines(accept: &'static str) -> bool {
        let headers = [(header::ACCEPT, HeaderValue::from_static(accept))];
        prefers_lines(&headers.into_iter().collect())
    }

    #[test]
    fn lines_are_sent_to_clients_that_name_them_and_do_not_prefer_json() {
        for accept in [
            "application/x-ndjson",
            "APPLICATION/X-NDJSON; q=0.5",
            "application/json, application/x-ndjson",
            "application/json;q=0.4, application/x-ndjson;charset=utf-8;q=0.5",
            "text/plain;q=0.9, application/x-ndjson;q=0.001",
        ] {
            assert!(asks_for_lines(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/json, application/x-ndjson;q=0",
            "application/x-ndjson; Q=0.0",
            "application/x-ndjson;q=nonsense",
            "application/json, application/x-ndjson;q=0.9",
        ] {
            assert!(!asks_for_lines(accept), "{accept}");
        }
    }
}
