//! The vhost-user vsock device: one process for each VM, which provides the hybrid-vsock socket.

use std::{
    os::unix::fs::FileTypeExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::artifacts::Artifacts;
use super::error::RigError;
use super::process::ChildProcess;
use super::wait::wait_until;

/// Deadline for the start. The backend opens its sockets within milliseconds; this is for a very busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Next free CID. CIDs 0 to 2 are reserved: hypervisor, local, host.
static NEXT_CID: AtomicU32 = AtomicU32::new(3);

/// Starts a backend and waits until both of its sockets exist.
///
/// QEMU connects to `vhost_socket`, hosts connect to `vsock_socket`.
pub(crate) fn start(
    artifacts: &Artifacts,
    vhost_socket: &Path,
    vsock_socket: &Path,
    log: &Path,
) -> Result<ChildProcess, RigError> {
    let mut command = Command::new(&artifacts.vsock_backend);
    command
        .arg("--guest-cid")
        .arg(NEXT_CID.fetch_add(1, Ordering::Relaxed).to_string())
        .arg("--socket")
        .arg(vhost_socket)
        .arg("--uds-path")
        .arg(vsock_socket);
    let mut backend =
        ChildProcess::spawn("vhost-device-vsock", &artifacts.setpriv, &command, log.to_owned())?;
    wait(&mut backend, vhost_socket, vsock_socket)?;
    Ok(backend)
}

/// Waits until both of a backend's sockets exist. QEMU's socket exists only while no QEMU is connected to it.
pub(crate) fn wait(
    backend: &mut ChildProcess,
    vhost_socket: &Path,
    vsock_socket: &Path,
) -> Result<(), RigError> {
    wait_until("vhost-device-vsock listens", START_TIMEOUT, || {
        backend.check_running()?;
        Ok((is_socket(vhost_socket) && is_socket(vsock_socket)).then_some(()))
    })
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}
