//! Request ids: the caller's `X-Request-Id`, or a generated one. The id is in the log, in the response, and in every
//! problem. The trace id of a caller's `traceparent` (W3C Trace Context) is also logged.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use std::convert::Infallible;
use std::sync::Arc;
use uuid::{Builder, Uuid};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Maximum length of an id that is accepted from a caller.
const MAX_LEN: usize = 128;

/// The id of a request. Also an extractor, for handlers that write problems into a stream, where the outermost layer
/// cannot add the id.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// Returns the caller's id if it is valid, otherwise a new UUID version 4. Its random bits need not be secret.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(from_caller(headers).map_or_else(generate, Arc::from))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

fn generate() -> Arc<str> {
    let uuid = Builder::from_random_bytes(rand::random()).into_uuid();
    Arc::from(&*uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
}

/// Returns the caller's id if it is short and plain enough for a log line.
fn from_caller(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&X_REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    ((1..=MAX_LEN).contains(&id.len()) && id.bytes().all(plain)).then_some(id)
}

/// Returns the trace id of `traceparent`, which is the second part of `version-traceid-parentid-flags`: 32 lower-case
/// hex digits, not all zero.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get(&TRACEPARENT)?.to_str().ok()?.split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let valid = id.len() == 32 && id.bytes().all(hex) && id.bytes().any(|byte| byte != b'0');
    valid.then_some(id)
}
