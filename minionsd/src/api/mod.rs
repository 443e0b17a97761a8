//! REST. One route list is both the routing and the OpenAPI document; handlers validate, convert,
//! call once, and convert back.
//!
//! * [`router`]: the route list. [`front`]: what stands around all of it, for every request.
//! * [`vms`], [`health`], [`status`], [`network`], [`exec`], [`service`], [`docs`]: a file a
//!   resource. [`dashboard`]: all VMs at a glance, for a browser.
//! * [`problem`]: domain errors to problem details, in one exhaustive match.
//! * [`extract`]: what a handler gets: the VM, the deadline, the body.
//! * [`auth`]: who asks, and who may do what. [`audit`]: one line for each operate call.
//! * [`host`]: under which names we may be asked for. [`browser`]: what a web page may not.
//! * [`events`]: what happens to VMs. [`metrics`]: figures.
//! * [`request_id`]: `X-Request-Id` and `traceparent`.

pub(crate) mod audit;
pub(crate) mod auth;
mod browser;
mod clock;
mod dashboard;
mod docs;
mod events;
mod exec;
mod extract;
mod front;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod host;
mod metrics;
mod network;
mod power;
mod problem;
mod request_id;
mod router;
mod service;
mod status;
mod vms;

use axum::http::HeaderName;
pub(crate) use front::Front;
pub use router::openapi_json;
pub(crate) use router::{Api, Parts, app, shed};

/// Tells nginx whether to collect a reply before it passes it on (`no` for streams).
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
