//! `GET /pools`, and `GET`, `PUT` and `DELETE /pools/{pool}`.

use super::super::audit::AuditNote;
use super::super::extract::{JsonBody, path_parameter};
use super::super::problem::{ApiError, DeclaredProblems, ServiceProblems};
use super::super::state::ApiState;
use super::revision::{ExpectedRevision, tagged};
use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use minions_api::pool::{Pool, PoolList, PoolStatus};
use minions_declare::{DeclareError, DeclaredState};
use minions_proto::Invalid;

/// Name of a pool in the path.
pub(in super::super) struct PoolName(pub(super) String);

impl FromRequestParts<ApiState> for PoolName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, ApiError> {
        path_parameter(parts, api, "pool").await.map(Self)
    }
}

/// List all address pools
///
/// Returns every pool with the number of its leases and free addresses.
#[utoipa::path(
    get, path = "/pools", operation_id = "list_pools", tag = "declared",
    responses((status = 200, description = "All pools, sorted by name", body = PoolList), ServiceProblems),
)]
pub(in super::super) async fn list_pools(State(api): State<ApiState>) -> Json<PoolList> {
    let pools = api
        .declared
        .read(|state| state.pools().values().map(|stored| state.pool_status(stored)).collect());
    Json(PoolList { pools })
}

fn find(state: &DeclaredState, name: &str) -> Result<PoolStatus, DeclareError> {
    let stored = state.pools().get(name).ok_or_else(|| DeclareError::NoPool(name.to_owned()))?;
    Ok(state.pool_status(stored))
}

/// Get an address pool
///
/// The `ETag` has its revision.
#[utoipa::path(
    get, path = "/pools/{pool}", operation_id = "get_pool", tag = "declared",
    params(("pool" = String, Path, description = "Name of the pool")),
    responses((status = 200, description = "The pool and its figures", body = PoolStatus), DeclaredProblems),
)]
pub(in super::super) async fn get_pool(
    State(api): State<ApiState>,
    PoolName(name): PoolName,
) -> Result<Response, ApiError> {
    let status = api.declared.read(|state| find(state, &name)).map_err(ApiError::declare)?;
    Ok(tagged(status.revision, status))
}

/// Create or replace an address pool
///
/// A pool that overlaps another one is refused, and so is one that loses an address that it gave.
#[utoipa::path(
    put, path = "/pools/{pool}", operation_id = "put_pool", tag = "declared",
    params(
        ("pool" = String, Path, description = "Name of the pool"),
        ("If-Match" = Option<String>, Header, description = "ETag that the pool must have; `*`: it must exist"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the pool must not exist"),
    ),
    request_body = Pool,
    responses((status = 200, description = "Pool stored", body = PoolStatus), DeclaredProblems),
)]
pub(in super::super) async fn put_pool(
    State(api): State<ApiState>,
    PoolName(name): PoolName,
    ExpectedRevision(expected): ExpectedRevision,
    note: AuditNote,
    JsonBody(mut pool): JsonBody<Pool>,
) -> Result<Response, ApiError> {
    if pool.name.is_empty() {
        pool.name.clone_from(&name);
    }
    if pool.name != name {
        let reason = format!("must be that of the path, {name:?}, or left out");
        return Err(ApiError::invalid(&Invalid::value("name", &pool.name, &reason)));
    }
    note.subject(&name).await?;
    let plan = move |state: &DeclaredState| Ok((state.plan_put_pool(pool, expected)?, ()));
    let read = move |(), state: &DeclaredState| find(state, &name);
    let status = api.declared.change_and_read(plan, read).await.map_err(ApiError::store)?;
    let status = status.map_err(ApiError::declare)?;
    Ok(tagged(status.revision, status))
}

/// Remove an address pool
///
/// A pool with leases, or with declarations that use it, is not removed. Returns the pool as it was.
#[utoipa::path(
    delete, path = "/pools/{pool}", operation_id = "delete_pool", tag = "declared",
    params(
        ("pool" = String, Path, description = "Name of the pool"),
        ("If-Match" = Option<String>, Header, description = "ETag that the pool must have"),
    ),
    responses((status = 200, description = "Pool removed", body = PoolStatus), DeclaredProblems),
)]
pub(in super::super) async fn delete_pool(
    State(api): State<ApiState>,
    PoolName(name): PoolName,
    ExpectedRevision(expected): ExpectedRevision,
    note: AuditNote,
) -> Result<Json<PoolStatus>, ApiError> {
    note.subject(&name).await?;
    let plan = move |state: &DeclaredState| {
        Ok((state.plan_remove_pool(&name, expected)?, find(state, &name)?))
    };
    api.declared.change(plan).await.map(Json).map_err(ApiError::store)
}
