//! The route list and the layers around it.

use super::problem::{ApiError, catch_panic};
use super::{docs, exec, health, host, network, request_id, service, status, vms};
use crate::config::Config;
use crate::vm::Registry;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The longest request body. A frame's cap is on its encoded length, and the body's own escapes
/// (`\u0000`) are at most as long, so whatever could fit a frame fits here.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// What every handler works with. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) registry: Registry,
    /// Cancelled once the daemon has been told to stop.
    pub(crate) draining: CancellationToken,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "minions",
        description = "Health, network, exec and status of this host's microVMs. \
                       Every failure is an `application/problem+json` with a stable `code`."
    ),
    // Every route refers to it by name.
    components(schemas(minions_api::Problem)),
    tags(
        (name = "vms", description = "What the registry knows; never touches a guest"),
        (name = "guest", description = "Asks the agent in the guest now"),
        (name = "service", description = "The daemon itself")
    )
)]
struct Document;

/// The one list: what is served, and what the document says.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(vms::list_vms))
        .routes(routes!(vms::get_vm))
        .routes(routes!(health::get_health))
        .routes(routes!(status::get_status))
        .routes(routes!(network::get_network, network::put_network))
        .routes(routes!(exec::run_exec))
        .routes(routes!(service::get_healthz))
        .routes(routes!(service::get_readyz))
        .routes(routes!(service::get_version))
        .routes(routes!(docs::get_openapi))
}

/// The OpenAPI document, as it is served and committed: pretty, with a newline at its end.
#[must_use]
pub fn openapi_json() -> String {
    let mut document = routes().to_openapi();
    // From our own crate's manifest; the licence and contact that utoipa would add are nobody's.
    document.info.license = None;
    document.info.contact = None;
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The service over all routes.
///
/// The last layer goes around the whole router rather than around each of its routes: only there
/// does a response have the `Allow` that the router adds to a refused method.
pub(crate) fn app(registry: Registry, config: &Config, draining: CancellationToken) -> Router {
    let api = Api { registry, draining };
    let hosts = Arc::new(host::AllowedHosts::new(config));
    let (router, _) = routes().split_for_parts();
    let router = router
        .with_state(api.clone())
        .merge(docs::pages())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(api, refuse_while_draining))
        .layer(from_fn_with_state(hosts, host::check))
        .layer(CatchPanicLayer::custom(catch_panic));
    Router::new().fallback_service(router).layer(from_fn(request_id::layer))
}

async fn no_such_path() -> ApiError {
    ApiError::no_such_path()
}

async fn no_such_method() -> ApiError {
    ApiError::method_not_allowed()
}

/// A request that arrives on an open connection after the daemon was told to stop is turned away;
/// only what the daemon says of itself is still served.
async fn refuse_while_draining(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let of_the_daemon = service::PATHS.contains(&request.uri().path());
    if api.draining.is_cancelled() && !of_the_daemon {
        return Err(ApiError::shutting_down());
    }
    Ok(next.run(request).await)
}
