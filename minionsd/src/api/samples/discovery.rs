//! `GET /sd`: targets for Prometheus's HTTP service discovery.

use super::super::declared::labels::VmQuery;
use super::super::extract::QueryParams;
use super::super::problem::{ApiError, ServiceProblems};
use super::super::state::ApiState;
use super::label_names::prometheus_labels;
use axum::Json;
use axum::extract::State;
use minions_api::VmName;
use minions_api::pool::LeaseKind;
use minions_api::samples::ScrapeTarget;
use minions_api::vm::VmState;
use minions_declare::DeclaredState;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

/// Port of Prometheus's node exporter.
const DEFAULT_PORT: u16 = 9100;

/// Query of `GET /sd`. A VM must satisfy all parameters except `port`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct TargetsQuery {
    /// Port of the exporters; default: 9100.
    #[param(minimum = 1)]
    port: Option<u16>,
    /// Labels that the VMs must have: `app=web,env!=prod,tier,!legacy`.
    label: Option<String>,
    /// State that the VMs must have.
    #[param(value_type = Option<VmState>)]
    state: Option<VmState>,
    /// Name, or pattern with `*` and `?`.
    name: Option<String>,
}

/// List targets for Prometheus's service discovery
///
/// Returns one target for each VM that has a leased or declared address, for exporters in guests (`http_sd_config`). A VM
/// with several addresses has the lowest IPv4 address.
#[utoipa::path(
    get, path = "/sd", operation_id = "list_targets", tag = "service",
    params(TargetsQuery),
    responses((status = 200, description = "Targets, sorted by VM", body = Vec<ScrapeTarget>), ServiceProblems),
)]
pub(in super::super) async fn list_targets(
    State(api): State<ApiState>,
    QueryParams(query): QueryParams<TargetsQuery>,
) -> Result<Json<Vec<ScrapeTarget>>, ApiError> {
    let TargetsQuery { port, label, state, name } = query;
    let port = port.unwrap_or(DEFAULT_PORT);
    if port == 0 {
        let reason = "`port` is 0: must be 1 to 65535".to_owned();
        return Err(ApiError::malformed(Some("port".to_owned()), reason));
    }
    let selection = VmQuery { label, state, name }.parse()?;
    let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
    let targets = vms.values().filter_map(|vm| {
        let labels = selection.select(&api, vm)?;
        let address = api.declared.read(|declared| address_of(declared, vm.name()))?;
        let mut labels = prometheus_labels("__meta_minions_label_", labels);
        labels.insert("__meta_minions_vm".to_owned(), vm.name().to_string());
        labels.insert("__meta_minions_state".to_owned(), vm.state().as_str().to_owned());
        Some(ScrapeTarget { targets: vec![SocketAddr::new(address, port).to_string()], labels })
    });
    Ok(Json(targets.collect()))
}

/// Returns the address at which a VM is reached: the lowest IPv4 address, otherwise the lowest one.
fn address_of(declared: &DeclaredState, vm: &VmName) -> Option<IpAddr> {
    let held = declared.leases().of_vm(vm).filter(|lease| {
        lease.unused_since.is_none() && matches!(lease.kind, LeaseKind::Pool | LeaseKind::Static)
    });
    held.map(|lease| lease.address).min_by_key(|address| (address.is_ipv6(), *address))
}
