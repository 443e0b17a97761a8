//! `GET /vms/{vm}/status`.

use super::extract::{CallParams, Patience, TheVm};
use super::problem::{ApiError, GuestProblems};
use crate::agent::Lane;
use axum::Json;
use minions_api::{VmName, status};
use minions_proto::message::{self as wire, ReportStatus};
use std::time::Duration;

/// Default deadline: an agent answers at once, unless a filesystem of its guest hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Get the status of a guest
///
/// Asks the agent at the time of the request for memory, filesystems, load, processors, network
/// interfaces and operating system.
#[utoipa::path(
    get, path = "/vms/{vm}/status", operation_id = "get_status", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    responses((status = 200, description = "Status of the guest", body = status::Status), GuestProblems),
)]
pub(super) async fn get_status(
    TheVm(vm): TheVm,
    patience: Patience,
) -> Result<Json<status::Status>, ApiError> {
    let deadline = patience.deadline_or(PATIENCE);
    vm.client()
        .call(&ReportStatus {}, Lane::Quick, deadline)
        .await
        .map(|reply| Json(shown(reply)))
        .map_err(|error| ApiError::call(vm.name(), error))
}

fn shown(status: wire::Status) -> status::Status {
    status::Status {
        status: "ok".into(),
        uptime_secs: status.uptime_secs,
        memory_total_mb: status.memory_total_mb,
        memory_used_mb: status.memory_used_mb,
        disk_total_gb: status.disk_total_gb,
        disk_used_gb: status.disk_used_gb,
        load: status.load,
        cpus: status.cpus,
        cpu_percent: status.cpu_percent,
        swap_total_mb: status.swap_total_mb,
        swap_used_mb: status.swap_used_mb,
        filesystems: status.filesystems,
        interfaces: status.interfaces,
        os: status.os,
        kernel: status.kernel,
    }
}
