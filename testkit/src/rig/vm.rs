//! One running guest.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    Artifacts, RigError, handshake,
    process::{Process, read_lossy, tail},
    qemu, qmp,
    socket::{self, OwnedSocket},
    vsock_backend,
    wait::wait_until,
};

const MONITOR: &str = "qmp.sock";
const SERIAL: &str = "serial.log";

/// What the guest's first process prints on the console at each boot.
const UP: &str = "init: up";

/// QEMU starts in a quarter of a second; this is for a machine that is very busy.
const QEMU_START_TIMEOUT: Duration = Duration::from_secs(15);

/// What kind of VM to boot.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// The VM's name: its socket is `<name>.vsock` and the guest's hostname is this.
    pub name: String,
    /// Where the hybrid-vsock socket goes; must exist and have a short path.
    pub socket_dir: PathBuf,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// What it boots into.
    pub guest: Guest,
    /// Whether a reboot of the guest ends QEMU, as it ends Firecracker.
    pub reboot_ends: bool,
}

/// What a VM boots into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guest {
    /// The rig's own initial ramdisk: busybox and the agent.
    Small,
    /// The same, with the agent itself as the first process (`--init`).
    AgentFirst,
    /// A raw disk image with a file system that systemd or another init is on; it is written to.
    Disk(PathBuf),
}

impl VmConfig {
    /// A small VM: 256 MiB and one CPU.
    pub fn new(name: impl Into<String>, socket_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            socket_dir: socket_dir.into(),
            memory_mib: 256,
            cpus: 1,
            guest: Guest::Small,
            reboot_ends: false,
        }
    }

    /// A VM with a distribution on `disk`: 512 MiB and two CPUs. A reboot ends it; boot it again.
    pub fn with_disk(
        name: impl Into<String>,
        socket_dir: impl Into<PathBuf>,
        disk: impl Into<PathBuf>,
    ) -> Self {
        Self {
            memory_mib: 512,
            cpus: 2,
            guest: Guest::Disk(disk.into()),
            reboot_ends: true,
            ..Self::new(name, socket_dir)
        }
    }
}

/// A running VM. Dropping it ends both of its processes and removes its files.
#[derive(Debug)]
pub struct Vm {
    name: String,
    /// How many boots the guest must have done for its vsock driver to be there.
    boots_due: AtomicUsize,
    // Dropped in this order: the backend (which would put a new socket in place of ours when it
    // sees the end of QEMU), QEMU, the files of both.
    vsock_backend: Process,
    qemu: Process,
    socket: OwnedSocket,
    private: TempDir,
}

impl Vm {
    /// Starts the vsock backend, then QEMU. Returns when both run; the guest is then booting
    /// (see [`Vm::wait_for_port`]).
    ///
    /// A socket that a killed VM of the same name left behind is replaced.
    ///
    /// # Errors
    ///
    /// For a name or path that cannot work, and when a program does not start or ends at once.
    pub fn boot(artifacts: &Artifacts, config: VmConfig) -> Result<Self, RigError> {
        if !is_vm_name(&config.name) {
            return Err(RigError::InvalidName(config.name));
        }
        let socket = socket::place(&config.socket_dir, &config.name)?;
        let private = tempfile::Builder::new()
            .prefix("minions-vm-")
            .tempdir()
            .map_err(RigError::io("create a directory in", std::env::temp_dir()))?;
        let file = |name| private.path().join(name);
        let vhost_socket = file("vhost.sock");
        let vsock_backend =
            vsock_backend::start(artifacts, &vhost_socket, &socket, &file("backend.log"))?;
        let socket = OwnedSocket::claim(socket)?;
        let (monitor, serial) = (file(MONITOR), file(SERIAL));
        let files = qemu::Files { vhost_socket: &vhost_socket, monitor: &monitor, serial: &serial };
        let command = qemu::command(artifacts, &config, &files);
        // A distribution doesn't say so. Before its driver's first start the backend refuses, unharmed.
        let boots_due = usize::from(!matches!(config.guest, Guest::Disk(_)));
        let qemu =
            Process::spawn("qemu-system-x86_64", &artifacts.setpriv, &command, file("qemu.log"))?;
        let mut vm = Self {
            name: config.name,
            boots_due: AtomicUsize::new(boots_due),
            qemu,
            vsock_backend,
            socket,
            private,
        };
        vm.wait_for_monitor()?;
        Ok(vm)
    }

    /// The VM's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hybrid-vsock socket.
    pub fn socket_path(&self) -> &Path {
        self.socket.path()
    }

    /// The pid of QEMU; after [`Vm::kill`] the pid that it had.
    pub fn qemu_pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// The pid of vhost-device-vsock, which is the peer of every connection to the socket.
    pub fn vsock_backend_pid(&self) -> u32 {
        self.vsock_backend.pid()
    }

    /// All that the guest has written to its console so far.
    pub fn serial_log(&self) -> String {
        read_lossy(&self.private.path().join(SERIAL))
    }

    /// Connects to a VSOCK port of the guest and does the `CONNECT` / `OK` handshake.
    ///
    /// # Errors
    ///
    /// [`RigError::Handshake`], also while the guest is still booting.
    pub fn connect(&self, port: u32) -> Result<UnixStream, RigError> {
        handshake::connect(self.socket_path(), port).map_err(|source| RigError::Handshake {
            port,
            path: self.socket_path().to_owned(),
            source,
        })
    }

    /// Waits until somebody in the guest takes connections on `port`. Touches the socket only
    /// when the guest's vsock driver is there (see [`Vm::reset`]).
    ///
    /// # Errors
    ///
    /// [`RigError::TimedOut`] with the end of the guest's console, or [`RigError::Ended`].
    pub fn wait_for_port(&mut self, port: u32, timeout: Duration) -> Result<(), RigError> {
        let what = format!("the guest {} listens on VSOCK port {port}", self.name);
        self.wait_until(&what, timeout, |vm| {
            let is_up = vm.boots() >= vm.boots_due.load(Ordering::Relaxed);
            Ok(if is_up { vm.connect(port).ok().map(drop) } else { None })
        })
    }

    /// Calls `condition` until it gives a value, for at most `timeout`; stops early when one of
    /// the VM's processes has ended.
    ///
    /// # Errors
    ///
    /// [`RigError::TimedOut`] with the end of the guest's console, [`RigError::Ended`], or what
    /// `condition` returned.
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

    /// Waits until QEMU has ended by itself, as it does when its guest powers off.
    ///
    /// # Errors
    ///
    /// [`RigError::TimedOut`] with the end of the guest's console.
    pub fn wait_for_end(&mut self, timeout: Duration) -> Result<(), RigError> {
        let what = format!("the guest {} has powered off", self.name);
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

    /// Crashes the VM: SIGKILL to both processes. The socket file stays, as after a real crash.
    pub fn kill(&mut self) {
        // The backend first: it would notice the end of QEMU and tidy up its socket.
        self.vsock_backend.kill();
        self.qemu.kill();
    }

    /// How often the guest has booted so far: counted on its console, by the line that it prints
    /// when its vsock driver is there.
    pub fn boots(&self) -> usize {
        self.serial_log().lines().filter(|line| line.trim_end() == UP).count()
    }

    /// Presses the reset button and returns at once; the guest boots anew and nobody is told.
    ///
    /// Keep away from the socket until [`Vm::boots`] has gone up (about 1.5 s), as
    /// [`Vm::wait_for_port`] does: no new connection, nothing sent or closed on an old one.
    /// vhost-device-vsock 0.3.0 looks at its queues whenever the host does something, and its
    /// worker ends for good when the guest has not set them up again. An idle connection is safe,
    /// and stays silent for ever.
    ///
    /// # Errors
    ///
    /// [`RigError::Monitor`].
    pub fn reset(&self) -> Result<(), RigError> {
        // Counted before: the boot that is to come is one more than those that were.
        let due = self.boots() + 1;
        qmp::execute(&self.private.path().join(MONITOR), "system_reset")?;
        self.boots_due.store(due, Ordering::Relaxed);
        Ok(())
    }

    /// Freezes QEMU (SIGSTOP): the socket still takes connections, the guest stays silent.
    ///
    /// Keep a connection that has sent its `CONNECT` open until it is answered after
    /// [`Vm::resume`]: vhost-device-vsock 0.3.0 panics, and serves nobody any more, when it
    /// cannot write the `OK` line. [`Vm::connect`] gives up after 10 s and so must not be called
    /// on a paused VM.
    ///
    /// # Errors
    ///
    /// [`RigError::Signal`].
    pub fn pause(&self) -> Result<(), RigError> {
        self.signal(Signal::STOP)
    }

    /// Ends [`Vm::pause`].
    ///
    /// # Errors
    ///
    /// [`RigError::Signal`].
    pub fn resume(&self) -> Result<(), RigError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), RigError> {
        let pid = Pid::from_raw(self.qemu_pid().cast_signed())
            .ok_or_else(|| RigError::Signal(io::ErrorKind::NotFound.into()))?;
        kill_process(pid, signal).map_err(|errno| RigError::Signal(errno.into()))
    }

    /// QEMU opens its monitor after it has read its options and opened its devices.
    fn wait_for_monitor(&mut self) -> Result<(), RigError> {
        let monitor = self.private.path().join(MONITOR);
        self.wait_until("QEMU opens its monitor", QEMU_START_TIMEOUT, |_| {
            Ok(monitor.exists().then_some(()))
        })
    }
}

/// The host daemon's rule: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
fn is_vm_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() <= 63
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
