//! The service around all routes, passed by every request.
//!
//! ```text
//!  request  ─▶ assign id ─▶ check Host ─▶ check Origin ─────────────▶ routes ─┐
//!  response ◀─ add id, security headers ◀─ write problem body ◀─ count ◀───────┘
//! ```
//!
//! This is one service, not a stack of layers: a layer costs every request a boxed future and a copied service,
//! and these steps do not wait for anything.
//!
//! It surrounds the whole router instead of each route, because only there does a response have the `Allow` that the
//! router adds when it refuses a method.

use super::auth::Peer;
use super::browser::{self, AllowedOrigins};
use super::extract::BodyLimit;
use super::host::AllowedHosts;
use super::problem::{ApiError, catch_panic, into_body, problem_in};
use super::request_id::{self, RequestId, X_REQUEST_ID};
use super::unread_body;
use crate::metrics::{Meters, RouteMeter};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;
use tower::Service;
use tracing::Instrument;

/// Maximum length of a request body. The 1 MiB limit of a frame applies to its encoded JSON, and a client's escapes
/// (`\u0000`) are not longer than the frame's, so every request that fits a frame fits here.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// All routes and the checks around them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Front(Arc<FrontState>);

#[derive(Debug)]
struct FrontState {
    routes: Router,
    /// Checks before routing; `None` to accept every request.
    gate: Option<RequestGate>,
    meters: Arc<Meters>,
    /// Meter of requests that reach no route: unknown paths and methods, refused hosts and origins.
    unrouted: Arc<RouteMeter>,
}

/// Checks that a request must pass before it is routed.
#[derive(Debug)]
pub(super) struct RequestGate {
    pub(super) hosts: AllowedHosts,
    pub(super) origins: AllowedOrigins,
}

impl RequestGate {
    fn pass(&self, request: &Request) -> Result<(), ApiError> {
        self.hosts.check(request)?;
        self.origins.check(request)
    }
}

impl Front {
    pub(super) fn new(routes: Router, gate: Option<RequestGate>, meters: Arc<Meters>) -> Self {
        let unrouted = meters.route("", "");
        Self(Arc::new(FrontState { routes, gate, meters, unrouted }))
    }

    /// Returns the service for one connection from `peer`.
    pub(crate) fn to(&self, peer: Peer) -> PeerService {
        PeerService { front: self.clone(), peer: Arc::new(peer) }
    }

    async fn answer(self, mut request: Request) -> Response {
        let Self(shared) = &self;
        let id = RequestId::of(request.headers());
        request.extensions_mut().insert(id.clone());
        let trace_id = request_id::trace_id(request.headers()).map(tracing::field::display);
        let span = tracing::info_span!("request", request_id = id.as_str(), trace_id);
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let policy = browser::policy(&path);
        let started = Instant::now();
        let mut response = shared.route(request).instrument(span.clone()).await;
        let status = response.status().as_u16();
        let took = started.elapsed();
        span.in_scope(|| {
            tracing::debug!(%method, path, status, micros = took.as_micros(), "served");
        });
        let meter = response.extensions_mut().remove::<Arc<RouteMeter>>();
        meter.as_ref().unwrap_or(&shared.unrouted).served(status, took);
        if let Some(code) = problem_in(&response) {
            shared.meters.problem(code);
        }
        response = into_body(response, id.as_str());
        browser::restrict(response.headers_mut(), policy);
        if let Ok(id) = HeaderValue::from_str(id.as_str()) {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        response
    }
}

impl FrontState {
    async fn route(&self, mut request: Request) -> Response {
        if let Some(gate) = &self.gate
            && let Err(refused) = gate.pass(&request)
        {
            return refused.into_response();
        }
        DefaultBodyLimit::max(MAX_BODY).apply(&mut request);
        request.extensions_mut().insert(BodyLimit(MAX_BODY));
        let mut routes = self.routes.clone();
        // A separate future, so that a panic before the first await is caught too.
        let routed = AssertUnwindSafe(async move { routes.call(request).await }).catch_unwind();
        match routed.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(panic) => catch_panic(&*panic),
        }
    }
}

/// Service for one connection. Adds the [`Peer`] to the extensions of every request.
#[derive(Debug, Clone)]
pub(crate) struct PeerService {
    front: Front,
    peer: Arc<Peer>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for PeerService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (head, body) = request.into_parts();
        let body = unread_body::drained(body, &head);
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(Arc::clone(&self.peer));
        let front = self.front.clone();
        Box::pin(async move { Ok(front.answer(request).await) })
    }
}
