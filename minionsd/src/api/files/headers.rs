//! The metadata of a file in response headers.

use super::call::OCTETS;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use minions_api::files::FileMetadata;
use std::time::{Duration, SystemTime};

/// Response header with the complete metadata, as JSON in ASCII.
pub(in super::super) const FILE_INFO: HeaderName = HeaderName::from_static("x-minions-file");

/// Response header with the id of the exec that serves the request.
pub(in super::super) const EXEC_ID: HeaderName = HeaderName::from_static("x-minions-exec");

/// Returns the headers for a file's contents.
pub(super) fn of_file(info: &FileMetadata) -> HeaderMap {
    let mut headers = of_any(info);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers
}

/// Returns the headers for a file of any type.
pub(super) fn of_any(info: &FileMetadata) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(etag) = etag_value(&info.etag) {
        headers.insert(ETAG, etag);
    }
    if let Some(modified) = last_modified(info.mtime_ns) {
        headers.insert(LAST_MODIFIED, modified);
    }
    if let Some(json) = ascii_json(info) {
        headers.insert(FILE_INFO, json);
    }
    headers
}

/// Sets the length of the body.
pub(super) fn set_length(headers: &mut HeaderMap, length: u64) {
    headers.insert(CONTENT_LENGTH, length.into());
}

/// Returns the etag in quotes, as HTTP requires; `None` if the guest's etag cannot be quoted.
fn etag_value(etag: &str) -> Option<HeaderValue> {
    let is_quotable = etag.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e));
    is_quotable.then(|| HeaderValue::from_str(&format!("\"{etag}\"")).ok()).flatten()
}

fn last_modified(mtime_ns: i64) -> Option<HeaderValue> {
    let since = Duration::from_nanos(u64::try_from(mtime_ns).ok()?);
    let time = SystemTime::UNIX_EPOCH.checked_add(since)?;
    HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok()
}

/// Encodes the metadata as JSON in which all characters beyond ASCII are escaped.
fn ascii_json(info: &FileMetadata) -> Option<HeaderValue> {
    let json = serde_json::to_string(info).ok()?;
    let mut ascii = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    HeaderValue::from_str(&ascii).ok()
}
