//! `GET /vms` and `GET /vms/{vm}`: the registry's view of VMs. No guest is contacted.

use super::declared::labels::{VmQuery, labels_of};
use super::extract::{QueryParams, TheVm};
use super::problem::{ApiError, ServiceProblems, VmProblems};
use super::state::ApiState;
use crate::vm::Vm;
use axum::Json;
use axum::extract::State;
use minions_api::label::Labels;
use minions_api::{VmName, vm};

/// List all VMs
///
/// Returns every VM that has a socket in the daemon's directory, sorted by name, with its state; with a
/// query, only those that satisfy all of it. Never contacts a guest.
#[utoipa::path(
    get, path = "/vms", operation_id = "list_vms", tag = "vms",
    params(VmQuery),
    responses((status = 200, description = "VMs, sorted by name", body = vm::VmList), ServiceProblems),
)]
pub(super) async fn list_vms(
    State(api): State<ApiState>,
    QueryParams(query): QueryParams<VmQuery>,
) -> Result<Json<vm::VmList>, ApiError> {
    let selection = query.parse()?;
    let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
    let selected = vms.values().filter_map(|vm| Some((vm, selection.select(&api, vm)?)));
    let vms = selected.map(|(vm, labels)| shown(&api, vm, labels, false)).collect();
    Ok(Json(vm::VmList { vms }))
}

/// Get a VM
///
/// Returns the daemon's knowledge of the VM, and the resource use of its VMM. Never contacts the
/// guest.
#[utoipa::path(
    get, path = "/vms/{vm}", operation_id = "get_vm", tag = "vms",
    params(("vm" = VmName, Path)),
    responses((status = 200, description = "State of the VM", body = vm::Vm), VmProblems),
)]
pub(super) async fn get_vm(State(api): State<ApiState>, TheVm(vm): TheVm) -> Json<vm::Vm> {
    let labels = labels_of(&api, vm.name());
    Json(shown(&api, &vm, labels, true))
}

/// Converts a VM to its REST form. `with_details` adds the facts that must be looked up in `/proc` first.
fn shown(api: &ApiState, vm: &Vm, labels: Labels, with_details: bool) -> vm::Vm {
    let (configured, configuration) = api.conditions.shown(vm.name()).unzip();
    let status = vm.status();
    let incarnation = status.incarnation();
    vm::Vm {
        name: vm.name().clone(),
        state: status.state,
        since: status.since,
        cause: status.cause,
        reason: status.reason,
        socket: vm.socket().display().to_string(),
        agent_port: vm.agent_port().get(),
        agent: status.agent.map(super::health::agent_info),
        hostname: status.hostname,
        quiesced_until: vm.lease().until(),
        failed_probes: status.failed_probes,
        last_seen: status.last_seen,
        last_error: status.last_error,
        attempts: status.attempts,
        next_probe: status.next_probe,
        incarnation,
        restore: status.restore,
        vmm: status.vmm.map(|vmm| vmm.show(with_details)),
        pool: vm.client().pool().figures(),
        labels,
        configured,
        configuration,
    }
}
