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
        load: status.load.map(|wire::Load { one, five, fifteen }| status::Load {
            one,
            five,
            fifteen,
        }),
        cpus: status.cpus,
        cpu_percent: status.cpu_percent,
        swap_total_mb: status.swap_total_mb,
        swap_used_mb: status.swap_used_mb,
        filesystems: status.filesystems.map(|all| all.into_iter().map(filesystem).collect()),
        interfaces: status.interfaces.map(|all| all.into_iter().map(interface).collect()),
        os: status.os.map(|wire::Os { id, version_id, pretty_name }| status::Os {
            id,
            version_id,
            pretty_name,
        }),
        kernel: status.kernel,
    }
}

fn filesystem(filesystem: wire::Filesystem) -> status::Filesystem {
    let wire::Filesystem {
        mount_point,
        fs_type,
        source,
        total_bytes,
        used_bytes,
        available_bytes,
        read_only,
    } = filesystem;
    status::Filesystem {
        mount_point,
        fs_type,
        source,
        total_bytes,
        used_bytes,
        available_bytes,
        read_only,
    }
}

/// Converts an interface from the wire type to the REST type.
pub(super) fn interface(interface: wire::Interface) -> status::Interface {
    status::Interface {
        name: interface.name,
        mac: interface.mac,
        up: interface.up,
        mtu: interface.mtu,
        addresses: interface.addresses,
        rx_bytes: interface.rx_bytes,
        rx_packets: interface.rx_packets,
        rx_errors: interface.rx_errors,
        rx_dropped: interface.rx_dropped,
        tx_bytes: interface.tx_bytes,
        tx_packets: interface.tx_packets,
        tx_errors: interface.tx_errors,
        tx_dropped: interface.tx_dropped,
    }
}
