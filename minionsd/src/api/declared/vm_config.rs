//! `GET /vms/{vm}/config` and `POST /vms/{vm}/config/apply`.

use super::super::extract::{CallParams, CallerTimeout, QueryParams, TheVm, path_parameter};
use super::super::problem::{ApiError, DeclaredProblems};
use super::super::state::ApiState;
use crate::reconcile::NotApplied;
use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use minions_api::VmName;
use minions_api::declaration::{FieldOrigin, VmConfig};
use minions_declare::explain::explain;
use minions_declare::{DeclaredState, EffectiveConfig, LeaseNeed};
use serde::Deserialize;
use std::time::Duration;

/// Default time to wait for the result of an apply: a network change with its checks takes at most this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Name of a VM in the path, which need not exist.
pub(in super::super) struct AnyVmName(VmName);

impl FromRequestParts<ApiState> for AnyVmName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, ApiError> {
        let name = path_parameter(parts, api, "vm").await?;
        let malformed =
            |error| ApiError::malformed(Some("vm".into()), format!("`vm` is {name:?}: {error}"));
        name.parse().map(Self).map_err(malformed)
    }
}

/// Get the configuration that a VM must have
///
/// Merges all declarations that match the VM, and names the declaration that each field comes from. The VM need not exist.
/// Never contacts the guest. With `explain=true`, also lists all declarations that have each field, and why one of them
/// decides.
#[utoipa::path(
    get, path = "/vms/{vm}/config", operation_id = "get_config", tag = "declared",
    params(("vm" = VmName, Path), ConfigQuery),
    responses((status = 200, description = "Effective configuration", body = VmConfig), DeclaredProblems),
)]
pub(in super::super) async fn get_config(
    State(api): State<ApiState>,
    AnyVmName(name): AnyVmName,
    QueryParams(query): QueryParams<ConfigQuery>,
) -> Json<VmConfig> {
    let mut config = effective(&api, &name);
    if query.explain == Some(true) {
        let explained = api.declared.read(|state| explain(&name, state.declarations()));
        config.explanation = Some(explained);
    }
    Json(config)
}

/// Query of `GET /vms/{vm}/config`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ConfigQuery {
    /// True to list all declarations that have each field.
    explain: Option<bool>,
}

fn effective(api: &ApiState, name: &VmName) -> VmConfig {
    let exists = api.registry.vms().is_some_and(|vms| vms.contains_key(name));
    let mut config = api.declared.read(|state| of_state(state, name));
    config.exists = exists;
    if let Some((configured, condition)) = api.conditions.shown(name).filter(|_| exists) {
        (config.configured, config.configuration) = (Some(configured), Some(condition));
    }
    config
}

fn of_state(state: &DeclaredState, name: &VmName) -> VmConfig {
    let config = state.effective(name);
    let (network, problem) = match request(state, &config) {
        Ok(network) => (network, None),
        Err(problem) => (None, Some(problem)),
    };
    VmConfig {
        vm: name.clone(),
        exists: false,
        declarations: config.declarations.clone(),
        labels: config.plain_labels(),
        drift: config.drift_policy(),
        clock_limit_ms: config.clock_limit_ms.as_ref().map(|field| field.value),
        restore: config.restore.as_ref().map(|field| field.value.clone()),
        network,
        origins: origins(state, &config),
        leases: state.leases().of_vm(name).cloned().collect(),
        problem,
        explanation: None,
        configured: None,
        configuration: None,
        generation: state.generation(&config),
    }
}

/// Returns the request for the agent. An address that is still to be leased is not a problem, unless all are taken.
fn request(
    state: &DeclaredState,
    config: &EffectiveConfig,
) -> Result<Option<minions_api::network::NetworkRequest>, String> {
    let needs = config.needs();
    if needs.iter().any(|need| state.lease_for(&config.vm, need).is_none()) {
        state.plan_leases(&config.vm, &needs).map_err(|error| error.to_string())?;
        return Ok(None);
    }
    state.network_request(config).map_err(|invalid| invalid.to_string())
}

/// Returns the origin of each field, also of those that come from a pool.
fn origins(state: &DeclaredState, config: &EffectiveConfig) -> Vec<FieldOrigin> {
    let mut origins = config.origins();
    for need in config.needs() {
        let LeaseNeed::Pool { pool, .. } = need else { continue };
        let Some(stored) = state.pools().get(&pool) else { continue };
        let declared = stored.pool.declared();
        let from = format!("pool {pool}");
        let mut add = |field: &str| {
            origins.push(FieldOrigin { field: field.to_owned(), from: from.clone() });
        };
        add("network.address");
        if declared.gateway.is_some() {
            add("network.gateway");
        }
        if config.dns.is_none() && !declared.dns.is_empty() {
            add("network.dns");
        }
        if config.mtu.is_none() && declared.mtu.is_some() {
            add("network.mtu");
        }
    }
    origins
}

/// Apply the configuration of a VM now
///
/// Compares the guest with its configuration and applies it, also if `drift` is `off` or `report`. Waits for the result.
#[utoipa::path(
    post, path = "/vms/{vm}/config/apply", operation_id = "apply_config", tag = "declared",
    params(("vm" = VmName, Path), CallParams),
    responses((status = 200, description = "Effective configuration, and its condition", body = VmConfig), DeclaredProblems),
)]
pub(in super::super) async fn apply_config(
    State(api): State<ApiState>,
    TheVm(vm): TheVm,
    patience: CallerTimeout,
) -> Result<Json<VmConfig>, ApiError> {
    let deadline = patience.deadline_or(PATIENCE);
    let checked = vm.client().check_precondition(deadline).await;
    checked.map_err(|error| ApiError::call(vm.name(), error))?;
    let applied = api.reconciler.apply_now(&vm, deadline).await;
    let applied = applied.and_then(|()| {
        // An attempt ends before the registry knows that its VM is gone, or after.
        let vms = api.registry.vms().unwrap_or_default();
        let now = vms.get(vm.name()).ok_or(NotApplied::Gone)?;
        if now.is_same(&vm) { Ok(()) } else { Err(NotApplied::Replaced) }
    });
    applied.map_err(|error| ApiError::not_applied(vm.name(), error))?;
    Ok(Json(effective(&api, vm.name())))
}
