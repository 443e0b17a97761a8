//! `GET /vms` and `GET /vms/{vm}`: the registry's view of VMs. No guest is contacted.

use super::declared::labels::{VmQuery, labels_of};
use super::extract::{QueryParams, TheVm};
use super::problem::{ApiError, ServiceProblems, VmProblems};
use super::state::ApiState;
use super::vm_list::ListedVms;
use crate::reconcile::VmCondition;
use crate::vm::Vm;
use crate::vm::status::VmStatus;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use minions_api::label::Labels;
use minions_api::{Timestamp, VmName, vm};

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
) -> Result<Response, ApiError> {
    let selection = query.parse()?;
    let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
    ListedVms::new(api, vms, selection).respond()
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

/// Returns the timeline of the current boot. A configuration of an earlier boot does not count.
fn boot_timeline(applied: Option<Timestamp>, status: &VmStatus) -> vm::BootTimeline {
    let mut boot = status.boot_timeline();
    boot.configured_at = applied.filter(|at| boot.ready_at.is_some_and(|ready| *at >= ready));
    boot
}

/// Converts a VM to its REST form. `with_details` adds the facts that must be looked up in `/proc` first.
pub(super) fn shown(api: &ApiState, vm: &Vm, labels: Labels, with_details: bool) -> vm::Vm {
    let condition = api.conditions.get(vm.name());
    let status = vm.status();
    let incarnation = status.incarnation();
    let applied = condition.as_ref().and_then(|condition| condition.first_applied);
    let boot = boot_timeline(applied, &status);
    vm::Vm {
        name: vm.name().clone(),
        state: status.state,
        since: status.since,
        cause: status.cause,
        reason: status.reason,
        socket: vm.socket().display().to_string(),
        agent_port: vm.agent_port().get(),
        agent: status.agent.as_deref().map(super::health::agent_info),
        hostname: status.hostname,
        quiesced_until: vm.lease().until(),
        failed_probes: status.failed_probes,
        last_seen: status.last_seen,
        last_error: status.last_error,
        attempts: status.attempts,
        boot: Some(boot),
        next_probe: status.next_probe,
        incarnation,
        restore: status.restore,
        vmm: status.vmm.map(|vmm| vmm.show(with_details)),
        pool: vm.client().pool().figures(),
        labels,
        configured: condition.as_ref().map(|condition| condition.state),
        configuration: condition.as_ref().map(VmCondition::shown),
    }
}
