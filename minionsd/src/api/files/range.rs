//! Parts of a file: the headers `Range` and `Content-Range` (RFC 9110, section 14).

use super::super::problem::ApiError;
use axum::http::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue};
use http_range_header::{StartPosition, SyntacticallyCorrectRange};
use std::ops::RangeInclusive;

/// Unit of the ranges that are supported.
const UNIT: &str = "bytes=";

/// Part of a file that a request selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestedRange {
    /// The whole file: without `Range`, with several ranges, with another unit than bytes, or with an `If-Range` that does
    /// not match.
    Whole,
    /// First and last byte of a part.
    Part(RangeInclusive<u64>),
    /// A range that begins after the end of the file.
    Unsatisfiable,
}

/// Reports whether the request selects a part of the file.
pub(super) fn is_requested(headers: &HeaderMap) -> bool {
    headers.contains_key(RANGE)
}

/// Returns the part that the request selects of a file with `size` bytes and this etag.
///
/// # Errors
///
/// `invalid_request` for a malformed `Range`.
pub(super) fn requested(
    headers: &HeaderMap,
    size: u64,
    etag: &str,
) -> Result<RequestedRange, ApiError> {
    let malformed = |detail| ApiError::malformed(Some("Range".into()), detail);
    let Some(range) = headers.get(RANGE) else { return Ok(RequestedRange::Whole) };
    let text = range.to_str().map_err(|_| malformed("`Range` is not ASCII".to_owned()))?;
    if let Some(validator) = headers.get(IF_RANGE)
        && validator.as_bytes() != format!("\"{etag}\"").as_bytes()
    {
        return Ok(RequestedRange::Whole);
    }
    // The standard requires that other units are ignored.
    if !text.trim_start().starts_with(UNIT) {
        return Ok(RequestedRange::Whole);
    }
    let parsed = http_range_header::parse_range_header(text)
        .map_err(|_| malformed(format!("`Range` is {text:?}: must be bytes=FIRST-LAST")))?;
    // Several parts would need a multipart body; the standard allows the whole file instead.
    if parsed.ranges.len() > 1 {
        return Ok(RequestedRange::Whole);
    }
    // The last bytes of a file that has fewer are the whole file.
    if let [SyntacticallyCorrectRange { start: StartPosition::FromLast(last), .. }] =
        parsed.ranges[..]
        && last > size
        && size > 0
    {
        return Ok(RequestedRange::Part(0..=size - 1));
    }
    Ok(match parsed.validate(size) {
        Ok(ranges) => ranges.into_iter().next().map_or(RequestedRange::Whole, RequestedRange::Part),
        Err(_) => RequestedRange::Unsatisfiable,
    })
}

/// Sets `Content-Range` for a part of a file of `size` bytes.
pub(super) fn set_part(headers: &mut HeaderMap, part: &RangeInclusive<u64>, size: u64) {
    insert(headers, &format!("bytes {}-{}/{size}", part.start(), part.end()));
}

/// Sets `Content-Range` for a range beyond the end of a file of `size` bytes.
pub(super) fn set_unsatisfiable(headers: &mut HeaderMap, size: u64) {
    insert(headers, &format!("bytes */{size}"));
}

fn insert(headers: &mut HeaderMap, text: &str) {
    // The text is ASCII, so the conversion does not fail.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(CONTENT_RANGE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(range: &str, if_range: Option<&str>) -> RequestedRange {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        if let Some(etag) = if_range {
            headers.insert(IF_RANGE, etag.parse().unwrap());
        }
        requested(&headers, 100, "e").unwrap()
    }

    #[test]
    fn a_range_is_a_part_of_the_file() {
        assert_eq!(range("bytes=0-9", None), RequestedRange::Part(0..=9));
        assert_eq!(range("bytes=90-", None), RequestedRange::Part(90..=99));
        assert_eq!(range("bytes=-10", None), RequestedRange::Part(90..=99));
        assert_eq!(range("bytes=-101", None), RequestedRange::Part(0..=99));
        assert_eq!(range("bytes=100-", None), RequestedRange::Unsatisfiable);
        assert_eq!(range("lines=0-9", None), RequestedRange::Whole);
        assert_eq!(range("bytes=0-1,3-4", None), RequestedRange::Whole);
    }

    #[test]
    fn a_range_applies_only_to_the_version_of_if_range() {
        assert_eq!(range("bytes=1-1", Some("\"e\"")), RequestedRange::Part(1..=1));
        assert_eq!(range("bytes=1-1", Some("\"other\"")), RequestedRange::Whole);
    }

    #[test]
    fn a_malformed_range_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=x-1".parse().unwrap());
        assert!(requested(&headers, 100, "e").is_err());
    }
}
