//! The route list and the layers around each route.

use super::audit::FirstEntryTime;
use super::auth::Policy;
use super::extract::BodyLimit;
use super::front::{Front, RequestGate};
use super::guard::{self, RouteGuard};
use super::problem::ApiError;
use super::state::ApiState;
use super::{
    browser, clock, dashboard, declared, docs, events, exec, files, forward, health, host,
    if_incarnation, metrics, network, power, problem, quiesce, restored, samples, service, status,
    vms,
};
use crate::audit::AuditLog;
use crate::config::Config;
use crate::declared::DeclaredStore;
use crate::exec::ExecResources;
use crate::metrics::Meters;
use crate::reconcile::{Reconciler, VmConditions};
use crate::vm::Registry;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use minions_api::ErrorCode;
use minions_api::service::Scope;
use std::sync::{Arc, LazyLock};
use tower::util::option_layer;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

/// Maximum length of a body that describes a program, or the whole declared state. It is larger than a frame, because it
/// includes the program's input, and so that arguments that are too long get their own problem code.
const MAX_EXEC_BODY: usize = 8 * 1024 * 1024;

/// Name of the security scheme in the OpenAPI document.
const BEARER: &str = "bearer";

/// Components from which [`app`] builds the service.
#[derive(Debug)]
pub(crate) struct AppParts {
    pub(crate) registry: Registry,
    pub(crate) policy: Policy,
    pub(crate) audit: AuditLog,
    pub(crate) declared: DeclaredStore,
    pub(crate) conditions: VmConditions,
    pub(crate) reconciler: Reconciler,
    pub(crate) execs: ExecResources,
    pub(crate) meters: Arc<Meters>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "minions",
        description = "Health, status, network, programs, files and ports of this host's microVMs. \
                       Every failure is an `application/problem+json` with a stable `code`."
    ),
    // Routes refer to these by name.
    components(schemas(minions_api::Problem, minions_api::event::Reset)),
    tags(
        (name = "vms", description = "VMs as the registry knows them; no guest is contacted"),
        (name = "guest", description = "Calls to the agent in the guest"),
        (name = "exec", description = "Runs programs in the guest"),
        (name = "files", description = "Reads and writes files of the guest"),
        (name = "forward", description = "Connects to ports and Unix sockets in the guest, and listens on them"),
        (name = "declared", description = "Settings that VMs must have, and addresses for them"),
        (name = "service", description = "The daemon itself")
    )
)]
struct Document;

/// Returns all routes. This one list determines routing, scopes and the OpenAPI document; a route cannot be added
/// without a scope.
fn routes(layers: &RouteLayers) -> OpenApiRouter<ApiState> {
    use Scope::{Operate, Read};
    declared_routes(layers, OpenApiRouter::with_openapi(Document::openapi()))
        .routes(layers.around(Read, routes!(vms::list_vms)))
        .routes(layers.around(Read, routes!(vms::get_vm)))
        .routes(layers.around(Read, routes!(events::follow_events)))
        .routes(layers.around(Read, routes!(health::get_health)))
        .routes(layers.around(Read, routes!(status::get_status)))
        .routes(layers.around(Read, routes!(samples::get_samples)))
        .routes(layers.around(Read, routes!(network::get_network)))
        .routes(layers.around(Operate, routes!(network::put_network)))
        .routes(layers.around(Operate, routes!(network::confirm_network)))
        .routes(layers.around(Operate, routes!(clock::put_clock)))
        .routes(layers.around(Operate, routes!(power::power_vm)))
        .routes(layers.around(Operate, routes!(quiesce::quiesce_vm)))
        .routes(layers.around(Operate, routes!(quiesce::thaw_vm)))
        .routes(layers.around(Operate, routes!(restored::restored_vm)))
        .routes(long(layers.around_program(routes!(exec::run_exec))))
        .routes(layers.around_program(routes!(exec::websocket::open_exec)))
        .routes(layers.around(Operate, routes!(exec::execs::list_execs)))
        .routes(layers.around(Operate, routes!(exec::execs::get_exec)))
        .routes(layers.around(Operate, routes!(exec::execs::delete_exec)))
        .routes(layers.around(Operate, routes!(exec::execs::signal_exec)))
        .routes(layers.around(Operate, routes!(exec::execs::get_exec_output)))
        .routes(long(layers.around_program(routes!(exec::many::run_many_execs))))
        .routes(layers.around_program(routes!(files::read::read_file)))
        .routes(unlimited(layers.around_program(routes!(files::write::write_file))))
        .routes(layers.around_program(routes!(files::manage::remove_file)))
        .routes(layers.around_program(routes!(files::list::list_files)))
        .routes(layers.around_program(routes!(files::manage::make_directory)))
        .routes(layers.around_program(routes!(files::manage::move_file)))
        .routes(layers.around_program(routes!(files::watch::watch_files)))
        .routes(layers.around_program(routes!(files::session::open_file_session)))
        .routes(layers.around_program(routes!(forward::open_forward)))
        .routes(layers.around_program(routes!(forward::listen::open_listener)))
        .routes(layers.around_program(routes!(forward::listen::accept_connection)))
        .routes(layers.around(Read, routes!(service::get_healthz)))
        .routes(layers.around(Read, routes!(service::get_readyz)))
        .routes(layers.around(Read, routes!(service::get_version)))
        .routes(layers.around(Read, routes!(service::get_whoami)))
        .routes(layers.around(Read, routes!(metrics::get_metrics)))
        .routes(layers.around(Read, routes!(samples::metrics::get_guest_metrics)))
        .routes(layers.around(Read, routes!(samples::discovery::list_targets)))
        .routes(layers.around(Read, routes!(docs::get_openapi)))
}

/// Adds the routes of the declared state.
fn declared_routes(
    layers: &RouteLayers,
    router: OpenApiRouter<ApiState>,
) -> OpenApiRouter<ApiState> {
    use Scope::{Operate, Read};
    router
        .routes(layers.around(Read, routes!(declared::declarations::list_declarations)))
        .routes(long(layers.around_program(routes!(declared::apply::apply_declarations))))
        .routes(layers.around(Read, routes!(declared::declarations::get_declaration)))
        .routes(layers.around_program(routes!(declared::declarations::put_declaration)))
        .routes(layers.around_program(routes!(declared::declarations::delete_declaration)))
        .routes(layers.around(Read, routes!(declared::vm_config::get_config)))
        .routes(layers.around(Operate, routes!(declared::vm_config::apply_config)))
        .routes(layers.around(Read, routes!(declared::pools::list_pools)))
        .routes(layers.around(Read, routes!(declared::pools::get_pool)))
        .routes(layers.around_program(routes!(declared::pools::put_pool)))
        .routes(layers.around_program(routes!(declared::pools::delete_pool)))
        .routes(layers.around(Read, routes!(declared::leases::list_leases)))
        .routes(layers.around_program(routes!(declared::leases::reserve_address)))
        .routes(layers.around_program(routes!(declared::leases::release_address)))
        .routes(layers.around(Read, routes!(declared::leases::list_all_leases)))
        .routes(layers.around_program(routes!(declared::leases::release_any_address)))
}

/// Raises the body limit of a route to [`MAX_EXEC_BODY`].
fn long((schemas, paths, route): UtoipaMethodRouter<ApiState>) -> UtoipaMethodRouter<ApiState> {
    let limits = (DefaultBodyLimit::max(MAX_EXEC_BODY), Extension(BodyLimit(MAX_EXEC_BODY)));
    (schemas, paths, route.layer(limits))
}

/// Removes the body limit of a route whose handler does not keep the body in memory.
fn unlimited(
    (schemas, paths, route): UtoipaMethodRouter<ApiState>,
) -> UtoipaMethodRouter<ApiState> {
    (schemas, paths, route.layer(DefaultBodyLimit::disable()))
}

/// Factory of the layers around routes. Without an [`ApiState`], only the OpenAPI document is built.
struct RouteLayers(Option<ApiState>);

impl RouteLayers {
    /// Adds the scope to the document, and the layer that checks it to the route.
    fn around(
        &self,
        scope: Scope,
        routes: UtoipaMethodRouter<ApiState>,
    ) -> UtoipaMethodRouter<ApiState> {
        self.with(scope, FirstEntryTime::AtAdmission, routes)
    }

    /// Does the same as [`around`](Self::around) for a route whose handler names the program that it runs.
    fn around_program(&self, routes: UtoipaMethodRouter<ApiState>) -> UtoipaMethodRouter<ApiState> {
        self.with(Scope::Operate, FirstEntryTime::WithProgram, routes)
    }

    fn with(
        &self,
        scope: Scope,
        begins: FirstEntryTime,
        (schemas, mut paths, route): UtoipaMethodRouter<ApiState>,
    ) -> UtoipaMethodRouter<ApiState> {
        let mut method = "";
        let mut template = String::new();
        let mut query = Vec::new();
        for (path, item) in &mut paths.paths {
            template.clone_from(path);
            for (of, operation) in operations(item) {
                method = of;
                query.extend(query_parameters(operation));
                let noted = ExtensionsBuilder::new().add("x-scope", scope.as_str()).build();
                operation.extensions.get_or_insert_default().merge(noted);
                if scope == Scope::Operate {
                    problem::document_refusal_without_audit(operation);
                    if path.starts_with("/vms/{vm}/") {
                        if_incarnation::document(operation);
                        problem::document_replaced_vm(operation);
                    }
                }
            }
        }
        let Some(api) = &self.0 else { return (schemas, paths, route) };
        let meter = api.meters.route(method, &template);
        let guard = RouteGuard { api: api.clone(), meter, begins, query: Some(query.into()) };
        let route = match scope {
            Scope::Read => route.layer(from_fn_with_state(guard, guard::read)),
            Scope::Operate => route.layer(from_fn_with_state(guard, guard::operate)),
        };
        (schemas, paths, route)
    }
}

/// Returns the operations of a path, with their methods.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let all = [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete), ("PATCH", patch)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Returns the names of an operation's query parameters.
fn query_parameters(operation: &Operation) -> impl Iterator<Item = String> {
    let parameters = operation.parameters.iter().flatten();
    parameters.filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
            Some(parameter.name.clone())
        }
        RefOr::T(_) | RefOr::Ref(_) => None,
    })
}

/// Returns the OpenAPI document as it is served and committed: pretty-printed, with a final newline.
#[must_use]
pub fn openapi_json() -> String {
    let mut document = routes(&RouteLayers(None)).to_openapi();
    // utoipa derives licence and contact from the crate's manifest, which does not have them.
    document.info.license = None;
    document.info.contact = None;
    add_security(&mut document);
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Returns the OpenAPI document, generated once.
fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(openapi_json);
    &DOCUMENT
}

/// Documents the bearer token as optional: without it, the connection decides (Unix socket, loopback).
fn add_security(document: &mut utoipa::openapi::OpenApi) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "The content of minionsd's `token_file`. Required to operate over TCP; over the Unix socket, \
         callers are identified by their user id.",
    ));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    let token = SecurityRequirement::new(BEARER, Vec::<String>::new());
    document.security = Some(vec![SecurityRequirement::default(), token]);
}

/// Builds the service over all routes.
pub(crate) fn app(config: &Config, parts: AppParts) -> Front {
    let AppParts { registry, policy, audit, declared, conditions, reconciler, execs, meters } =
        parts;
    let draining = execs.draining.clone();
    let api = ApiState {
        registry,
        policy,
        audit,
        declared,
        conditions,
        reconciler,
        execs,
        meters,
        draining,
        document,
    };
    let origins = browser::AllowedOrigins::new(config);
    let (router, _) = routes(&RouteLayers(Some(api.clone()))).split_for_parts();
    let meter = api.meters.route("GET", "/docs");
    let guard =
        RouteGuard { api: api.clone(), meter, begins: FirstEntryTime::AtAdmission, query: None };
    let pages =
        docs::pages().merge(dashboard::pages()).layer(from_fn_with_state(guard, guard::read));
    let meters = Arc::clone(&api.meters);
    let routes = router
        .with_state(api)
        .merge(pages)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(option_layer(origins.cors()));
    let gate = RequestGate { hosts: host::AllowedHosts::new(config), origins };
    Front::new(routes, Some(gate), meters)
}

/// Builds the service for clients beyond the connection limit: `/healthz`, and a 503 for everything else.
pub(crate) fn shed(meters: Arc<Meters>) -> Front {
    let routes = Router::new()
        .route("/healthz", axum::routing::get(service::get_healthz))
        .fallback(async || {
            ApiError::of(ErrorCode::Overloaded, "too many clients are connected; retry later")
        });
    Front::new(routes, None, meters)
}

async fn no_such_path() -> ApiError {
    ApiError::no_such_path()
}

async fn no_such_method() -> ApiError {
    ApiError::method_not_allowed()
}
