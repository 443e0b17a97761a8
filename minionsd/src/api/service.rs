//! Routes about the daemon itself. None of them waits for a guest.

use super::auth::{Caller, UID_WARNING};
use super::problem::{ApiError, ServiceProblems};
use super::state::ApiState;
use crate::config::TcpOperate;
use axum::Json;
use axum::extract::{Request, State};
use minions_api::service::{Liveness, Readiness, Version, Whoami};

/// Paths that are served until the daemon exits, even while it drains.
pub(super) const PATHS: &[&str] = &["/healthz", "/readyz", "/version"];

/// Check that the daemon is alive
///
/// Never depends on a guest.
#[utoipa::path(
    get, path = "/healthz", operation_id = "get_healthz", tag = "service",
    responses((status = 200, description = "Alive", body = Liveness), ServiceProblems),
)]
pub(super) async fn get_healthz() -> Json<Liveness> {
    Json(Liveness { status: "ok".into() })
}

/// Check that the daemon is ready
///
/// The daemon is ready when it has scanned its directory for VMs and is not stopping. `detail`
/// contains warnings about its settings, its audit log and its declared state.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readyz", tag = "service",
    responses((status = 200, description = "Ready", body = Readiness), ServiceProblems),
)]
pub(super) async fn get_readyz(State(api): State<ApiState>) -> Result<Json<Readiness>, ApiError> {
    if api.draining.is_cancelled() {
        return Err(ApiError::shutting_down());
    }
    let vms = api.registry.vms().ok_or_else(ApiError::starting)?.len();
    Ok(Json(Readiness { status: "ready".into(), vms, detail: detail(&api) }))
}

/// Returns the warnings for the operator of the host, if there are any.
fn detail(api: &ApiState) -> Option<String> {
    let by_uid = api.policy.tcp_operate == TcpOperate::Uid;
    let audit = "the audit log cannot be written: operate calls are refused until it can";
    let warnings: Vec<_> = [
        by_uid.then_some(UID_WARNING),
        api.audit.refuses_calls().then_some(audit),
        api.declared.problem(),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

/// Get the version of the daemon
///
/// Returns the name, the version and the newest wire protocol.
#[utoipa::path(
    get, path = "/version", operation_id = "get_version", tag = "service",
    responses((status = 200, description = "Version of the daemon", body = Version), ServiceProblems),
)]
pub(super) async fn get_version() -> Json<Version> {
    Json(Version {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: minions_proto::version::PROTOCOL,
    })
}

/// Get the identity and scopes of the caller
///
/// The identity is determined by the bearer token, or by the connection.
#[utoipa::path(
    get, path = "/whoami", operation_id = "get_whoami", tag = "service",
    responses((status = 200, description = "Identity and scopes of the caller", body = Whoami), ServiceProblems),
)]
pub(super) async fn get_whoami(
    State(api): State<ApiState>,
    request: Request,
) -> Result<Json<Whoami>, ApiError> {
    let caller = Caller::of(&request, &api.policy)?;
    let identity = caller.identity().await;
    Ok(Json(Whoami { identity, scopes: caller.scopes(&api.policy).await }))
}
