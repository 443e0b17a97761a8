//! Every request has an id: the caller's `X-Request-Id`, or one made here. It is in the log, in the
//! response, and in every problem. A caller's `traceparent` (W3C Trace Context) puts its trace id
//! into the log too.

use super::problem::{into_body, problem_in};
use crate::metrics::{Meters, RouteMeter};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id that is taken over.
const MAX_LEN: usize = 128;

/// The id, for a handler that writes problems where the outermost layer doesn't see them: into a
/// stream.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
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

/// What the outermost layer counts with. A cheap clone.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    meters: Arc<Meters>,
    /// For what isn't any route's: wrong paths and methods, refused hosts and origins.
    unrouted: Arc<RouteMeter>,
}

impl Counted {
    pub(super) fn new(meters: Arc<Meters>) -> Self {
        let unrouted = meters.route("", "");
        Self { meters, unrouted }
    }
}

/// The outermost layer.
pub(super) async fn layer(
    State(counted): State<Counted>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = given(request.headers()).unwrap_or_else(|| Uuid::new_v4().to_string());
    request.extensions_mut().insert(RequestId(id.as_str().into()));
    let trace_id = trace_id(request.headers()).map(tracing::field::display);
    let span = tracing::info_span!("request", request_id = %id, trace_id);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, took) = (response.status().as_u16(), started.elapsed());
    span.in_scope(|| {
        tracing::debug!(%method, path, status, micros = took.as_micros(), "served");
    });
    let meter = response.extensions_mut().remove::<Arc<RouteMeter>>();
    meter.as_ref().unwrap_or(&counted.unrouted).served(status, took);
    if let Some(code) = problem_in(&response) {
        counted.meters.problem(code);
    }
    response = into_body(response, &id);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

/// The caller's id, if it is short and plain enough to stand in a log line.
fn given(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(&X_REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    ((1..=MAX_LEN).contains(&id.len()) && id.bytes().all(plain)).then(|| id.to_owned())
}

/// The second of `version-traceid-parentid-flags`: 32 lower-case hex digits, not all zero.
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let mut parts = headers.get(&TRACEPARENT)?.to_str().ok()?.split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let valid = id.len() == 32 && id.bytes().all(hex) && id.bytes().any(|byte| byte != b'0');
    valid.then(|| id.to_owned())
}
