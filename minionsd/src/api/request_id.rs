//! Every request has an id: the caller's `X-Request-Id`, or one made here. It is in the log, in the
//! response, and in every problem. A caller's `traceparent` (W3C Trace Context) puts its trace id
//! into the log too.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use std::convert::Infallible;
use std::sync::Arc;
use uuid::{Builder, Uuid};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id that is taken over.
const MAX_LEN: usize = 128;

/// The id, for a handler that writes problems where the outermost layer doesn't see them: into a
/// stream.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's, or a new one: a UUID of version 4, whose random bits need not be secret.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(given(headers).map_or_else(made, Arc::from))
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

fn made() -> Arc<str> {
    let uuid = Builder::from_random_bytes(rand::random()).into_uuid();
    Arc::from(&*uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
}

/// The caller's id, if it is short and plain enough to stand in a log line.
fn given(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&X_REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    ((1..=MAX_LEN).contains(&id.len()) && id.bytes().all(plain)).then_some(id)
}

/// The second of `version-traceid-parentid-flags`: 32 lower-case hex digits, not all zero.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get(&TRACEPARENT)?.to_str().ok()?.split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let valid = id.len() == 32 && id.bytes().all(hex) && id.bytes().any(|byte| byte != b'0');
    valid.then_some(id)
}
