//! `GET /vms`, `GET /vms/{vm}`: what the registry knows. Never touches a guest.

use super::Api;
use super::extract::TheVm;
use super::problem::{ApiError, ServiceProblems, VmProblems};
use crate::vm::Vm;
use axum::Json;
use axum::extract::State;
use minions_api::{VmName, vm};

/// All VMs, in the order of their names
#[utoipa::path(
    get, path = "/vms", operation_id = "list_vms", tag = "vms",
    responses((status = 200, description = "Every VM that has a socket here", body = vm::VmList), ServiceProblems),
)]
pub(super) async fn list_vms(State(api): State<Api>) -> Result<Json<vm::VmList>, ApiError> {
    let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
    Ok(Json(vm::VmList { vms: vms.values().map(|vm| shown(vm, false)).collect() }))
}

/// One VM
#[utoipa::path(
    get, path = "/vms/{vm}", operation_id = "get_vm", tag = "vms",
    params(("vm" = VmName, Path)),
    responses((status = 200, description = "What is known of it", body = vm::Vm), VmProblems),
)]
pub(super) async fn get_vm(TheVm(vm): TheVm) -> Json<vm::Vm> {
    Json(shown(&vm, true))
}

/// `closely`: with what has to be looked up first.
fn shown(vm: &Vm, closely: bool) -> vm::Vm {
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
        failed_probes: status.failed_probes,
        last_seen: status.last_seen,
        last_error: status.last_error,
        attempts: status.attempts,
        next_probe: status.next_probe,
        incarnation,
        vmm: status.vmm.map(|vmm| vmm.show(closely)),
        pool: vm.client().pool().figures(),
    }
}
