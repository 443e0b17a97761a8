//! What stands around all routes, for every request.
//!
//! ```text
//!  request ─▶ its id ─▶ our name? ─▶ from a page that may? ─▶ routes
//!  reply   ◀─ id, figures, a problem's body ◀─ what browsers may do with it ◀─┘
//! ```
//!
//! One service, not a stack of layers: a layer costs every request a boxed future and a copied service,
//! and what is here looks at a request without waiting for anything.
//!
//! It goes around the whole router rather than around each of its routes: only there does a response
//! have the `Allow` that the router adds to a refused method.

use super::auth::Peer;
use super::browser::{self, AllowedOrigins};
use super::extract::BodyLimit;
use super::host::AllowedHosts;
use super::problem::{ApiError, catch_panic, into_body, problem_in};
use super::request_id::{self, RequestId, X_REQUEST_ID};
use crate::metrics::{Meters, RouteMeter};
use axum::Router;
use axum::body::Body;
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

/// The longest request body. A frame's cap is on its encoded length, and the body's own escapes
/// (`\u0000`) are at most as long, so whatever could fit a frame fits here.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// All routes and what stands around them. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Front(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    routes: Router,
    /// Without one, whoever comes is let through.
    gate: Option<Gate>,
    meters: Arc<Meters>,
    /// For what isn't any route's: wrong paths and methods, refused hosts and origins.
    unrouted: Arc<RouteMeter>,
}

/// What a request must pass before it gets to a route.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) hosts: AllowedHosts,
    pub(super) origins: AllowedOrigins,
}

impl Gate {
    fn pass(&self, request: &Request) -> Result<(), ApiError> {
        self.hosts.check(request)?;
        self.origins.check(request)
    }
}

impl Front {
    pub(super) fn new(routes: Router, gate: Option<Gate>, meters: Arc<Meters>) -> Self {
        let unrouted = meters.route("", "");
        Self(Arc::new(Shared { routes, gate, meters, unrouted }))
    }

    /// What is served on one connection.
    pub(crate) fn to(&self, peer: Peer) -> PeerService {
        PeerService { front: self.clone(), peer: Arc::new(peer) }
    }

    async fn answer(self, mut request: Request) -> Response {
        let Self(shared) = &self;
        let id = RequestId::of(request.headers());
        request.extensions_mut().insert(id.clone());
        let trace_id = request_id::trace_id(request.headers()).map(tracing::field::display);
        let span = tracing::info_span!("request", request_id = id.as_str(), trace_id);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let policy = browser::policy(&path);
        let started = Instant::now();
        let mut response = shared.route(request).instrument(span.clone()).await;
        let (status, took) = (response.status().as_u16(), started.elapsed());
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

impl Shared {
    async fn route(&self, mut request: Request) -> Response {
        if let Some(gate) = &self.gate
            && let Err(refused) = gate.pass(&request)
        {
            return refused.into_response();
        }
        DefaultBodyLimit::max(MAX_BODY).apply(&mut request);
        request.extensions_mut().insert(BodyLimit(MAX_BODY));
        let mut routes = self.routes.clone();
        // In a future of its own, so that a panic before the first await is caught too.
        let routed = AssertUnwindSafe(async move { routes.call(request).await }).catch_unwind();
        match routed.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(panic) => catch_panic(&*panic),
        }
    }
}

/// What is served to one client, whom every request is told.
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
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&self.peer));
        let front = self.front.clone();
        Box::pin(async move { Ok(front.answer(request).await) })
    }
}
