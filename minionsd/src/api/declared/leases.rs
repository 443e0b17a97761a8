//! `GET` and `POST /pools/{pool}/leases`, `DELETE /pools/{pool}/leases/{address}`, and `GET /leases`, `DELETE
//! /leases/{address}`.

use super::super::audit::AuditNote;
use super::super::extract::{JsonBody, path_parameter};
use super::super::problem::{ApiError, DeclaredProblems, ServiceProblems};
use super::super::state::ApiState;
use super::pools::PoolName;
use crate::reconcile::release;
use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use minions_api::pool::{Lease, LeaseList, ReserveRequest};
use minions_declare::{DeclareError, DeclaredState};
use std::net::IpAddr;

/// Address in the path.
pub(in super::super) struct LeaseAddress(IpAddr);

impl FromRequestParts<ApiState> for LeaseAddress {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, ApiError> {
        let text = path_parameter(parts, api, "address").await?;
        text.parse().map(Self).map_err(|_| {
            let detail = format!("`address` is {text:?}: must be an IP address");
            ApiError::malformed(Some("address".to_owned()), detail)
        })
    }
}

/// List the leases of a pool
///
/// Returns the leases of all addresses in the pool's subnet, sorted by address.
#[utoipa::path(
    get, path = "/pools/{pool}/leases", operation_id = "list_leases", tag = "declared",
    params(("pool" = String, Path, description = "Name of the pool")),
    responses((status = 200, description = "Leases, sorted by address", body = LeaseList), DeclaredProblems),
)]
pub(in super::super) async fn list_leases(
    State(api): State<ApiState>,
    PoolName(name): PoolName,
) -> Result<Json<LeaseList>, ApiError> {
    let leases = api.declared.read(|state| {
        let pool = state.pools().get(&name).ok_or_else(|| DeclareError::NoPool(name.clone()))?;
        Ok(state.leases_in(&pool.pool).cloned().collect())
    });
    leases.map(|leases| Json(LeaseList { leases })).map_err(ApiError::declare)
}

/// Reserve an address
///
/// For a VM, which gets the address when it is configured next, or to keep the address from all VMs. The reservation ends
/// only when it is released.
#[utoipa::path(
    post, path = "/pools/{pool}/leases", operation_id = "reserve_address", tag = "declared",
    params(("pool" = String, Path, description = "Name of the pool")),
    request_body = ReserveRequest,
    responses((status = 200, description = "Address reserved", body = Lease), DeclaredProblems),
)]
pub(in super::super) async fn reserve_address(
    State(api): State<ApiState>,
    PoolName(name): PoolName,
    note: AuditNote,
    JsonBody(request): JsonBody<ReserveRequest>,
) -> Result<Json<Lease>, ApiError> {
    note.subject(&name).await?;
    let plan = move |state: &DeclaredState| state.plan_reserve(&name, &request);
    let reconciler = api.reconciler.clone();
    let reserved = move |lease: Lease, _: &DeclaredState| {
        reconciler.lease_changed(&lease);
        lease
    };
    let lease = api.declared.change_and_read(plan, reserved).await.map_err(ApiError::store)?;
    note.outcome(|| format!("reserved {}", lease.address));
    Ok(Json(lease))
}

/// Release an address
///
/// Ends a lease or reservation at once. The address of a VM that exists and may have it is not released. Returns the
/// lease as it was.
#[utoipa::path(
    delete, path = "/pools/{pool}/leases/{address}", operation_id = "release_address", tag = "declared",
    params(
        ("pool" = String, Path, description = "Name of the pool"),
        ("address" = String, Path, description = "Address of the lease"),
    ),
    responses((status = 200, description = "Address released", body = Lease), DeclaredProblems),
)]
pub(in super::super) async fn release_address(
    State(api): State<ApiState>,
    PoolName(name): PoolName,
    LeaseAddress(address): LeaseAddress,
    note: AuditNote,
) -> Result<Json<Lease>, ApiError> {
    note.subject(&format!("{name} {address}")).await?;
    release_lease(&api, Some(name), address).await
}

/// List all leases
///
/// Returns the leases of all pools, and those of declared addresses that are in the subnet of no pool, sorted by address.
#[utoipa::path(
    get, path = "/leases", operation_id = "list_all_leases", tag = "declared",
    responses((status = 200, description = "Leases, sorted by address", body = LeaseList), ServiceProblems),
)]
pub(in super::super) async fn list_all_leases(State(api): State<ApiState>) -> Json<LeaseList> {
    Json(LeaseList { leases: api.declared.read(|state| state.leases().iter().cloned().collect()) })
}

/// Release any address
///
/// Like the release of an address of a pool, for every lease: also that of a declared address that is in the subnet of no
/// pool.
#[utoipa::path(
    delete, path = "/leases/{address}", operation_id = "release_any_address", tag = "declared",
    params(("address" = String, Path, description = "Address of the lease")),
    responses((status = 200, description = "Address released", body = Lease), DeclaredProblems),
)]
pub(in super::super) async fn release_any_address(
    State(api): State<ApiState>,
    LeaseAddress(address): LeaseAddress,
    note: AuditNote,
) -> Result<Json<Lease>, ApiError> {
    note.subject(&address.to_string()).await?;
    release_lease(&api, None, address).await
}

async fn release_lease(
    api: &ApiState,
    pool: Option<String>,
    address: IpAddr,
) -> Result<Json<Lease>, ApiError> {
    api.registry.vms().ok_or_else(ApiError::starting)?;
    let ApiState { declared, registry, conditions, reconciler, .. } = api;
    let lease = (pool, address);
    let released = release(declared, registry, conditions, reconciler.clone(), lease).await;
    released.map(Json).map_err(ApiError::store)
}
