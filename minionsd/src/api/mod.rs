//! The REST interface. One route list is both the routing and the OpenAPI document. Handlers validate, convert,
//! call once, and convert back.
//!
//! * [`router`]: the route list. [`front`]: the service around all routes, passed by every request. [`guard`]: the
//!   layers in front of each route. [`state`]: the state of all handlers.
//! * [`vms`], [`health`], [`status`], [`clock`], [`power`], [`quiesce`], [`restored`], [`network`], [`exec`], [`files`],
//!   [`forward`], [`events`], [`metrics`], [`service`], [`docs`]: one file per resource. [`vm_list`]: a long reply of
//!   [`vms`]. [`declared`]: declarations, pools and configurations. [`samples`]: figures of guests. [`dashboard`]: overview of all VMs, for browsers.
//! * [`problem`]: conversion of domain errors to problem details, in one exhaustive match.
//! * [`extract`]: extractors for handlers: the VM, the deadline, the body. [`streamed`]: replies without an end.
//!   [`websocket_close`]: the end of WebSockets.
//! * [`auth`]: authentication and authorization. [`audit`]: audit entries of operate calls.
//! * [`if_incarnation`]: the precondition of a call. [`host`]: the `Host` check. [`browser`]: the origin check, CORS and
//!   security headers.
//! * [`request_id`]: `X-Request-Id` and `traceparent`.

pub(crate) mod audit;
pub(crate) mod auth;
mod browser;
mod clock;
mod dashboard;
mod declared;
mod docs;
mod events;
mod exec;
mod extract;
mod files;
mod forward;
mod front;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod health;
mod host;
mod if_incarnation;
mod metrics;
mod network;
mod power;
mod problem;
mod quiesce;
mod request_id;
mod restored;
mod router;
mod samples;
mod service;
mod state;
mod status;
mod streamed;
mod unread_body;
mod vm_list;
mod vms;
mod websocket_close;

pub(crate) use front::Front;
pub use router::openapi_json;
pub(crate) use router::{AppParts, app, shed};
