//! `GET` and `PUT /vms/{vm}/network`.

use super::extract::{CallParams, JsonBody, Patience, TheVm};
use super::problem::{ApiError, BodyProblems, GuestProblems};
use super::status::interface;
use crate::agent::{CallError, Lane};
use axum::Json;
use minions_api::VmName;
use minions_api::network::{Network, NetworkApplied, NetworkRequest};
use minions_proto::message::{ConfigureNetwork, ReportStatus};
use std::time::Duration;

/// A handful of netlink requests and a small file.
const PATIENCE: Duration = Duration::from_secs(15);

/// Read the guest's network interfaces back
#[utoipa::path(
    get, path = "/vms/{vm}/network", operation_id = "get_network", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    responses((status = 200, description = "As the guest's kernel has them", body = Network), GuestProblems),
)]
pub(super) async fn get_network(
    TheVm(vm): TheVm,
    patience: Patience,
) -> Result<Json<Network>, ApiError> {
    let deadline = patience.deadline_or(PATIENCE);
    let reply = vm.client().call(&ReportStatus {}, Lane::Quick, deadline).await;
    reply
        .and_then(|status| {
            let needs = "report of its interfaces";
            status.interfaces.ok_or(CallError::TooOld { needs: needs.into(), field: None })
        })
        .map(|all| {
            Json(Network {
                status: "ok".into(),
                interfaces: all.into_iter().map(interface).collect(),
            })
        })
        .map_err(|error| ApiError::call(vm.name(), error))
}

/// Replace the guest's network configuration
#[utoipa::path(
    put, path = "/vms/{vm}/network", operation_id = "put_network", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    request_body = NetworkRequest,
    responses((status = 200, description = "It is so now", body = NetworkApplied), BodyProblems),
)]
pub(super) async fn put_network(
    TheVm(vm): TheVm,
    patience: Patience,
    JsonBody(request): JsonBody<NetworkRequest>,
) -> Result<Json<NetworkApplied>, ApiError> {
    let NetworkRequest { ip, gateway, dns } = request;
    let call = ConfigureNetwork { ip, gateway, dns };
    call.plan().map_err(|invalid| ApiError::invalid(&invalid).about(vm.name().clone()))?;
    let deadline = patience.deadline_or(PATIENCE);
    let done = vm
        .client()
        .call(&call, Lane::Quick, deadline)
        .await
        .map_err(|error| ApiError::call(vm.name(), error))?;
    Ok(Json(NetworkApplied { status: "ok".into(), message: done.message }))
}
