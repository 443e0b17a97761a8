//! Snapshots: a guest that is saved and restored, or that gets another vsock device, socket and backend.
//!
//! QEMU 7.2 cannot save the state of a vhost-user vsock device. So the device is unplugged before, and another one is
//! plugged in after; the guest's kernel breaks its connections at this, as it does at a restore.

use super::artifacts::Artifacts;
use super::config::VmConfig;
use super::error::RigError;
use super::process::ChildProcess;
use super::socket::{self, OwnedSocket};
use super::vm::{MONITOR, Vm, start_qemu};
use super::wait::wait_until;
use super::{qmp, vsock_backend};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tempfile::TempDir;

/// Deadline for one step of QEMU: unplugging takes 30 ms, saving and loading half a second.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Slot of the vsock device, in which devices can be plugged while the guest runs.
pub(crate) const SLOT: &str = "vsock-slot";

/// Guest that was saved, with its memory and its devices. Any number of VMs can be restored from it.
#[derive(Debug)]
pub struct Snapshot {
    artifacts: Artifacts,
    config: VmConfig,
    dir: TempDir,
}

impl Snapshot {
    fn path(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

/// Returns the ids of the device with this number and of its character device.
pub(crate) fn device_ids(number: usize) -> (String, String) {
    (format!("vsock-{number}"), format!("vhost-{number}"))
}

/// Returns the path of the socket between QEMU and the backend of the device with this number.
pub(crate) fn vhost_socket(private: &Path, number: usize) -> PathBuf {
    private.join(format!("vhost-{number}.sock"))
}

impl Vm {
    /// Replaces the vsock device, its backend and the VM's socket by new ones while the guest runs: what a restore
    /// under another VMM looks like from the inside. The old backend is killed, as by a crash of a VMM.
    ///
    /// # Errors
    ///
    /// [`RigError::Monitor`], or those of [`Vm::boot`] about the backend.
    pub fn replace_backend(&mut self) -> Result<(), RigError> {
        self.unplug()?;
        self.plug()
    }

    /// Saves the guest, and ends the VM.
    ///
    /// # Errors
    ///
    /// [`RigError::Monitor`] or [`RigError::TimedOut`].
    pub fn save(mut self) -> Result<Snapshot, RigError> {
        let dir = tempfile::Builder::new()
            .prefix("minions-snapshot-")
            .tempdir()
            .map_err(RigError::io("create a directory in", std::env::temp_dir()))?;
        let (artifacts, config) = (self.artifacts.clone(), self.config.clone());
        let snapshot = Snapshot { artifacts, config, dir };
        self.unplug()?;
        self.qmp("stop", &json!({}))?;
        let uri = format!("exec:cat >{}", snapshot.path().display());
        self.qmp("migrate", &json!({ "uri": uri }))?;
        wait_until("QEMU has saved the guest", STEP_TIMEOUT, || {
            let migration = self.qmp("query-migrate", &json!({}))?;
            Ok((migration["status"] == "completed").then_some(()))
        })?;
        Ok(snapshot)
    }

    /// Starts a VM of this name that continues the saved guest.
    ///
    /// # Errors
    ///
    /// As [`Vm::boot`].
    pub fn restore(snapshot: &Snapshot, name: &str, socket_dir: &Path) -> Result<Self, RigError> {
        let (name, socket_dir) = (name.to_owned(), socket_dir.to_owned());
        let incoming = Some(snapshot.path());
        let config = VmConfig { name, socket_dir, incoming, ..snapshot.config.clone() };
        let private = tempfile::Builder::new()
            .prefix("minions-vm-")
            .tempdir()
            .map_err(RigError::io("create a directory in", std::env::temp_dir()))?;
        let mut qemu = start_qemu(&snapshot.artifacts, &config, private.path())?;
        let monitor = private.path().join(MONITOR);
        wait_until("QEMU has loaded the guest", STEP_TIMEOUT, || {
            qemu.check_running()?;
            let status =
                monitor.exists().then(|| qmp::execute_with(&monitor, "query-status", &json!({})));
            // The monitor may not listen yet.
            let Some(Ok(status)) = status else { return Ok(None) };
            Ok((status["status"] != "inmigrate").then_some(()))
        })?;
        let number = 1;
        let (vsock_backend, socket) =
            start_backend(&snapshot.artifacts, &config, private.path(), number)?;
        let vm = Self {
            artifacts: snapshot.artifacts.clone(),
            config,
            boots_due: AtomicUsize::new(0),
            vsock_backend,
            qemu,
            socket,
            private,
            device: number,
        };
        vm.add_device()?;
        vm.qmp("cont", &json!({}))?;
        Ok(vm)
    }

    fn qmp(&self, command: &str, arguments: &Value) -> Result<Value, RigError> {
        qmp::execute_with(&self.private.path().join(MONITOR), command, arguments)
    }

    /// Kills the backend, and removes the device.
    fn unplug(&mut self) -> Result<(), RigError> {
        self.vsock_backend.kill();
        // The character device stays: QEMU may still use it, and the next one has another name.
        let (device, _) = device_ids(self.device);
        self.qmp("device_del", &json!({ "id": device }))?;
        wait_until("the guest has released its vsock device", STEP_TIMEOUT, || {
            let devices = self.qmp("qom-list", &json!({ "path": "/machine/peripheral" }))?;
            let is_left = devices
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["name"] == device[..]));
            Ok((!is_left).then_some(()))
        })
    }

    /// Starts another backend, and plugs in a device that uses it.
    fn plug(&mut self) -> Result<(), RigError> {
        self.device += 1;
        let (backend, socket) =
            start_backend(&self.artifacts, &self.config, self.private.path(), self.device)?;
        (self.vsock_backend, self.socket) = (backend, socket);
        self.add_device()
    }

    fn add_device(&self) -> Result<(), RigError> {
        let (device, chardev) = device_ids(self.device);
        let path = vhost_socket(self.private.path(), self.device);
        let address = json!({ "type": "unix", "data": { "path": path } });
        let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        self.qmp("chardev-add", &json!({ "id": chardev, "backend": backend }))?;
        let device = json!({ "driver": "vhost-user-vsock-pci", "chardev": chardev, "id": device, "bus": SLOT });
        self.qmp("device_add", &device).map(drop)
    }
}

fn start_backend(
    artifacts: &Artifacts,
    config: &VmConfig,
    private: &Path,
    number: usize,
) -> Result<(ChildProcess, OwnedSocket), RigError> {
    let socket = socket::place(&config.socket_dir, &config.name)?;
    let log = private.join(format!("backend-{number}.log"));
    let backend = vsock_backend::start(artifacts, &vhost_socket(private, number), &socket, &log)?;
    Ok((backend, OwnedSocket::claim(socket)?))
}
