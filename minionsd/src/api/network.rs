//! `GET` and `PUT /vms/{vm}/network`, `POST /vms/{vm}/network/confirm`.

mod convert;

use super::audit::AuditNote;
use super::extract::{CallParams, CallerTimeout, JsonBody, QueryParams, TheVm};
use super::problem::{ApiError, GuestProblems, NetworkProblems};
use super::state::ApiState;
use crate::agent::{AgentRefusal, CallError, Lane};
use crate::reconcile::is_declared;
use crate::vm::Vm;
use axum::Json;
use axum::extract::State;
use minions_api::network::{
    Network, NetworkApplied, NetworkConfirmRequest, NetworkConfirmed, NetworkRequest,
};
use minions_api::{ErrorCode, VmName};
use minions_proto::message::{
    ChangeNetwork, ConfigureNetwork, Feature, NetworkChanged, NetworkConfirm, ReadNetwork,
    ReportStatus,
};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

/// Default deadline for reading and confirming: the agent makes some netlink requests and reads a small file.
const PATIENCE: Duration = Duration::from_secs(15);

/// Maximum time that an agent takes to make a change, verify it, and roll it back.
const CHANGE_PATIENCE: Duration = Duration::from_secs(60);

/// Get the network of a guest
///
/// Asks the agent at the time of the request for interfaces, routes, resolver configuration and
/// hostname, and for a change that waits for its confirmation.
#[utoipa::path(
    get, path = "/vms/{vm}/network", operation_id = "get_network", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    responses((status = 200, description = "Network of the guest", body = Network), GuestProblems),
)]
pub(super) async fn get_network(
    TheVm(vm): TheVm,
    patience: CallerTimeout,
) -> Result<Json<Network>, ApiError> {
    let deadline = patience.deadline_or(PATIENCE);
    read(&vm, deadline).await.map(Json).map_err(|error| ApiError::call(vm.name(), error))
}

async fn read(vm: &Vm, deadline: Instant) -> Result<Network, CallError> {
    // An agent whose `--allow` has `status` but not `network` does not announce the feature, but reads the network.
    if vm.client().has_feature(Feature::Network, deadline).await? || vm.client().is_restricted() {
        let state = vm.client().call(&ReadNetwork {}, Lane::Quick, deadline).await?;
        return Ok(convert::network(state));
    }
    let status = vm.client().call(&ReportStatus {}, Lane::Quick, deadline).await?;
    let interfaces =
        status.interfaces.ok_or_else(|| AgentRefusal::too_old(Feature::Network, &[]))?;
    Ok(Network {
        status: "ok".into(),
        hostname: None,
        interfaces,
        routes: None,
        dns: None,
        pending: None,
    })
}

/// Change the network of a guest
///
/// Settings that are in the request replace the existing ones; all others stay unchanged. A change
/// is applied completely or not at all: if a step or a check fails, everything is rolled back and the
/// problem is `network_failed`. With `confirm_within_ms` the change is rolled back unless it is
/// confirmed in time. A VM whose network or hostname is declared is changed only with
/// `override=true`.
#[utoipa::path(
    put, path = "/vms/{vm}/network", operation_id = "put_network", tag = "guest",
    params(("vm" = VmName, Path), NetworkParams),
    request_body = NetworkRequest,
    responses((status = 200, description = "Configuration applied", body = NetworkApplied), NetworkProblems),
)]
pub(super) async fn put_network(
    State(api): State<ApiState>,
    TheVm(vm): TheVm,
    QueryParams(params): QueryParams<NetworkParams>,
    note: AuditNote,
    JsonBody(request): JsonBody<NetworkRequest>,
) -> Result<Json<NetworkApplied>, ApiError> {
    let patience = CallerTimeout::of(params.timeout_ms)?;
    let is_dry_run = request.dry_run == Some(true);
    let is_declared = api.declared.read(|state| is_declared(state, vm.name()));
    if is_declared && !is_dry_run && params.r#override != Some(true) {
        return Err(declared(vm.name()));
    }
    let change = ChangeNetwork::from(request);
    let about = |error: ApiError| error.about(vm.name().clone());
    let kept = (change.dry_run != Some(true)).then(|| change.clone());
    let changed = match change.beyond_base() {
        None => {
            let base =
                convert::base(change).map_err(|invalid| about(ApiError::invalid(&invalid)))?;
            base.plan().map_err(|invalid| about(ApiError::invalid(&invalid)))?;
            set(&vm, &base, patience.deadline_or(CHANGE_PATIENCE)).await
        }
        Some(field) => {
            change.plan().map_err(|invalid| about(ApiError::invalid(&invalid)))?;
            make(&vm, &change, field, patience.deadline_or(CHANGE_PATIENCE)).await
        }
    };
    let changed = changed.map_err(|error| ApiError::call(vm.name(), error))?;
    if let Some(network) = kept {
        let pending = changed.pending.as_ref().map(|pending| pending.id.clone());
        vm.networks().set(vm.name(), network, pending);
    }
    note.outcome(|| convert::in_a_word(&changed));
    if is_declared && !is_dry_run {
        api.reconciler.look_soon(vm.name()).await;
    }
    Ok(Json(convert::applied(changed)))
}

/// Query of a network change.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NetworkParams {
    /// Milliseconds after which the caller gets an `agent_timeout` instead of an answer.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
    /// True to change the network of a VM although declarations configure it.
    r#override: Option<bool>,
}

fn declared(vm: &VmName) -> ApiError {
    let detail = "declarations configure this VM (GET /vms/{vm}/config): change them, or repeat the request with \
                  override=true";
    ApiError::of(ErrorCode::VmDeclared, detail).about(vm.clone())
}

/// Sends a change that every agent supports. It does not occupy the lane of quick calls, because it may wait for an
/// interface to appear or a service to restart.
async fn set(
    vm: &Vm,
    base: &ConfigureNetwork,
    deadline: Instant,
) -> Result<NetworkChanged, CallError> {
    vm.client().call(base, Lane::Stream, deadline).await
}

/// Sends a change that requires the feature `network2`. It does not occupy the lane of quick calls, because it may
/// wait for a gateway that does not answer.
async fn make(
    vm: &Vm,
    change: &ChangeNetwork,
    field: &str,
    deadline: Instant,
) -> Result<NetworkChanged, CallError> {
    vm.client().require(Feature::Network, &[field], deadline).await?;
    vm.client().call(change, Lane::Stream, deadline).await
}

/// Confirm a network change
///
/// Makes a change with `confirm_within_ms` permanent. A confirmation that is too late is a
/// `network_change_gone`.
#[utoipa::path(
    post, path = "/vms/{vm}/network/confirm", operation_id = "confirm_network", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    request_body = NetworkConfirmRequest,
    responses((status = 200, description = "Change confirmed", body = NetworkConfirmed), NetworkProblems),
)]
pub(super) async fn confirm_network(
    TheVm(vm): TheVm,
    patience: CallerTimeout,
    JsonBody(request): JsonBody<NetworkConfirmRequest>,
) -> Result<Json<NetworkConfirmed>, ApiError> {
    let call = NetworkConfirm { id: request.id }.validate();
    let call = call.map_err(|invalid| ApiError::invalid(&invalid).about(vm.name().clone()))?;
    let deadline = patience.deadline_or(PATIENCE);
    let confirm = async {
        vm.client().require(Feature::Network, &[], deadline).await?;
        vm.client().call(&call, Lane::Quick, deadline).await
    };
    let done = confirm.await.map_err(|error| ApiError::call(vm.name(), error))?;
    vm.networks().confirmed(vm.name(), &call.id);
    Ok(Json(NetworkConfirmed { status: "ok".into(), message: done.message }))
}
