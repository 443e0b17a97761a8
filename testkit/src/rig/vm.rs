//! A running VM.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tempfile::TempDir;

use super::artifacts::Artifacts;
use super::config::{Guest, VmConfig};
use super::error::RigError;
use super::process::{ChildProcess, read_lossy, tail};
use super::socket::{self, OwnedSocket};
use super::wait::wait_until;
use super::{handshake, qemu, snapshot, vsock_backend};

pub(super) const MONITOR: &str = "qmp.sock";
const SERIAL: &str = "serial.log";

/// Line that the guest's first process prints on the console at each boot.
const UP: &str = "init: up";

/// Deadline for the start of QEMU, which takes a quarter of a second; long enough for a very busy machine.
const QEMU_START_TIMEOUT: Duration = Duration::from_secs(15);

/// Running VM. Dropping it ends both of its processes and removes its files.
#[derive(Debug)]
pub struct Vm {
    pub(super) artifacts: Artifacts,
    pub(super) config: VmConfig,
    /// Number of boots after which the guest is the requested one.
    pub(super) boots_due: AtomicUsize,
    // Dropped in this order: the backend (which would replace our socket with a new one when it sees the end
    // of QEMU), QEMU, the files of both.
    pub(super) vsock_backend: ChildProcess,
    pub(super) qemu: ChildProcess,
    pub(super) socket: OwnedSocket,
    pub(super) private: TempDir,
    /// Number of the vsock device.
    pub(super) device: usize,
}

impl Vm {
    /// Starts the vsock backend, then QEMU. Returns when both run; the guest is then booting
    /// (see [`Vm::wait_for_port`]).
    ///
    /// A socket left by a killed VM of the same name is replaced.
    ///
    /// # Errors
    ///
    /// The name or a path cannot work, or a program does not start or ends at once.
    pub fn boot(artifacts: &Artifacts, config: VmConfig) -> Result<Self, RigError> {
        if !is_vm_name(&config.name) {
            return Err(RigError::InvalidName(config.name));
        }
        let socket = socket::place(&config.socket_dir, &config.name)?;
        let private = tempfile::Builder::new()
            .prefix("minions-vm-")
            .tempdir()
            .map_err(RigError::io("create a directory in", std::env::temp_dir()))?;
        let vhost_socket = snapshot::vhost_socket(private.path(), 0);
        let log = private.path().join("backend.log");
        let vsock_backend = vsock_backend::start(artifacts, &vhost_socket, &socket, &log)?;
        let socket = OwnedSocket::claim(socket)?;
        let qemu = start_qemu(artifacts, &config, private.path())?;
        // A distribution does not print the line. Before its driver starts, the backend rejects connections,
        // which is harmless.
        let boots_due = usize::from(!matches!(config.guest, Guest::Disk(_)));
        let mut vm = Self {
            artifacts: artifacts.clone(),
            config,
            boots_due: AtomicUsize::new(boots_due),
            qemu,
            vsock_backend,
            socket,
            private,
            device: 0,
        };
        vm.wait_for_monitor()?;
        Ok(vm)
    }

    /// Returns the VM's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Returns the path of the hybrid-vsock socket.
    pub fn socket_path(&self) -> &Path {
        self.socket.path()
    }

    /// Returns the pid of QEMU; after [`Vm::kill`], the pid that it had.
    pub fn qemu_pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// Returns the pid of vhost-device-vsock, which is the peer of every connection to the socket.
    pub fn vsock_backend_pid(&self) -> u32 {
        self.vsock_backend.pid()
    }

    /// Returns everything that the guest has written to its console so far.
    pub fn serial_log(&self) -> String {
        read_lossy(&self.private.path().join(SERIAL))
    }

    /// Connects to a VSOCK port of the guest and performs the `CONNECT` / `OK` handshake.
    ///
    /// # Errors
    ///
    /// [`RigError::Handshake`], also while the guest is still booting.
    pub fn connect(&self, port: u32) -> Result<UnixStream, RigError> {
        handshake::connect(self.socket_path(), port)
            .map_err(|source| self.handshake_error(port, source))
    }

    pub(super) fn handshake_error(&self, port: u32, source: io::Error) -> RigError {
        RigError::Handshake { port, path: self.socket_path().to_owned(), source }
    }

    /// Waits until a process in the guest accepts connections on `port`; after a [`Vm::reset`], in the guest
    /// that boots then.
    ///
    /// # Errors
    ///
    /// [`RigError::TimedOut`] with the end of the guest's console, or [`RigError::Ended`].
    pub fn wait_for_port(&mut self, port: u32, timeout: Duration) -> Result<(), RigError> {
        let what = format!("the guest {} listens on VSOCK port {port}", self.name());
        self.wait_until(&what, timeout, |vm| {
            let is_up = vm.boots() >= vm.boots_due.load(Ordering::Relaxed);
            Ok(if is_up { vm.connect(port).ok().map(drop) } else { None })
        })
    }

    /// Calls `condition` until it returns a value, for at most `timeout`; stops early if one of the VM's
    /// processes has ended.
    ///
    /// # Errors
    ///
    /// [`RigError::TimedOut`] with the end of the guest's console, [`RigError::Ended`], or the error of
    /// `condition`.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&Self) -> Result<Option<T>, RigError>,
    ) -> Result<T, RigError> {
        let outcome = wait_until(what, timeout, || {
            self.qemu.check_running()?;
            self.vsock_backend.check_running()?;
            condition(self)
        });
        outcome.map_err(|error| match error {
            RigError::TimedOut { what, timeout, .. } => {
                RigError::TimedOut { what, timeout, serial: tail(&self.serial_log()) }
            }
            other => other,
        })
    }

    /// Waits until QEMU has ended without being killed, as it does when its guest powers off.
    ///
    /// # Errors
    ///
    /// [`RigError::TimedOut`] with the end of the guest's console.
    pub fn wait_for_end(&mut self, timeout: Duration) -> Result<(), RigError> {
        let what = format!("the guest {} has powered off", self.name());
        wait_until(&what, timeout, || match self.qemu.check_running() {
            Err(RigError::Ended { .. }) => Ok(Some(())),
            other => other.map(|()| None),
        })
        .map_err(|error| match error {
            RigError::TimedOut { what, timeout, .. } => {
                RigError::TimedOut { what, timeout, serial: tail(&self.serial_log()) }
            }
            other => other,
        })
    }

    /// Returns the number of boots so far: the number of lines on the console that the guest prints when its
    /// vsock driver is loaded.
    pub fn boots(&self) -> usize {
        boots(&self.serial_log())
    }

    /// Returns the text after `label` on the first complete line of the console that contains it. A line without
    /// a line break may still be incomplete.
    pub fn serial_line(&self, label: &str) -> Option<String> {
        line_after(&self.serial_log(), label)
    }

    /// Waits until QEMU has opened its monitor, which follows the parsing of options and the opening of
    /// devices.
    pub(super) fn wait_for_monitor(&mut self) -> Result<(), RigError> {
        let monitor = self.private.path().join(MONITOR);
        self.wait_until("QEMU opens its monitor", QEMU_START_TIMEOUT, |_| {
            Ok(monitor.exists().then_some(()))
        })
    }
}

/// Counts the boots on a console. A reset cuts the line that was being written: the next boot's line follows its
/// beginning without a line break.
fn boots(console: &str) -> usize {
    console.lines().filter(|line| line.trim_end().ends_with(UP)).count()
}

fn line_after(console: &str, label: &str) -> Option<String> {
    console
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .find_map(|line| Some(line.split_once(label)?.1.trim().to_owned()))
}

/// Starts QEMU with its files in `private`.
pub(super) fn start_qemu(
    artifacts: &Artifacts,
    config: &VmConfig,
    private: &Path,
) -> Result<ChildProcess, RigError> {
    let vhost_socket = snapshot::vhost_socket(private, 0);
    let [monitor, serial] = [MONITOR, SERIAL].map(|name| private.join(name));
    for left in [&monitor, &serial] {
        // Left by a QEMU that was killed: the files must be those of the new QEMU.
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RigError::io("remove", left)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let files = qemu::QemuFiles { vhost_socket: &vhost_socket, monitor: &monitor, serial: &serial };
    let command = qemu::command(artifacts, config, &files);
    ChildProcess::spawn(
        "qemu-system-x86_64",
        &artifacts.setpriv,
        &command,
        private.join("qemu.log"),
    )
}

/// Checks the host daemon's rule: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
fn is_vm_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() <= 63
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::{boots, line_after};

    #[test]
    fn a_boot_counts_also_where_a_reset_cut_the_line_before_it() {
        assert_eq!(boots(""), 0);
        assert_eq!(boots("init: up\r\n2026-11-30T07:33:init: up\r\nlistening on vsock\r\n"), 2);
        assert_eq!(boots("init: up and running\n"), 0);
    }

    #[test]
    fn a_line_counts_when_it_is_complete() {
        assert_eq!(line_after("result: inactive ina", "result: "), None);
        let console = "other\r\nresult: inactive refused\r\nresult: second\r\n";
        assert_eq!(line_after(console, "result: ").as_deref(), Some("inactive refused"));
    }
}
