//! Faults of a VM, injected on purpose.

use std::{io, sync::atomic::Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::error::RigError;
use super::socket::OwnedSocket;
use super::vm::{MONITOR, Vm, start_qemu};
use super::{agent, qmp, snapshot, vsock_backend};

impl Vm {
    /// Crashes the VM: sends SIGKILL to both processes. The socket file remains, as after a real crash.
    pub fn kill(&mut self) {
        // The backend first: otherwise it would notice the end of QEMU and remove its socket.
        self.vsock_backend.kill();
        self.qemu.kill();
    }

    /// Presses the reset button and returns at once; the guest boots again, and its clients are not informed.
    /// Open connections stay silent until something is sent on them.
    ///
    /// # Errors
    ///
    /// [`RigError::Monitor`].
    pub fn reset(&self) -> Result<(), RigError> {
        // Counted before the reset: the next boot is the number of boots so far plus one.
        let due = self.boots() + 1;
        qmp::execute(&self.private.path().join(MONITOR), "system_reset")?;
        self.boots_due.store(due, Ordering::Relaxed);
        Ok(())
    }

    /// Freezes QEMU (SIGSTOP): the socket still accepts connections, the guest stays silent.
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

    /// Pauses the guest (QMP `stop`): its processors stop and its vsock device with them. QEMU and the backend
    /// continue.
    ///
    /// # Errors
    ///
    /// [`RigError::Monitor`].
    pub fn stop(&self) -> Result<(), RigError> {
        qmp::execute(&self.private.path().join(MONITOR), "stop")
    }

    /// Ends [`Vm::stop`] (QMP `cont`).
    ///
    /// # Errors
    ///
    /// [`RigError::Monitor`].
    pub fn cont(&self) -> Result<(), RigError> {
        qmp::execute(&self.private.path().join(MONITOR), "cont")
    }

    /// Kills the agent in the guest (SIGKILL), over a separate connection of the rig. The guest starts the
    /// agent again.
    ///
    /// # Errors
    ///
    /// [`RigError::Handshake`], also if the agent does not end.
    pub fn kill_agent(&self, port: u32) -> Result<(), RigError> {
        let stream = self.connect(port)?;
        agent::kill(stream).map_err(|source| self.handshake_error(port, source))
    }

    /// Crashes only QEMU (SIGKILL). The vsock backend continues with a new socket in place of the old one,
    /// and rejects every `CONNECT`. See [`Vm::power_on`].
    ///
    /// # Errors
    ///
    /// [`RigError::TimedOut`] or [`RigError::Ended`], if the backend does not survive the crash.
    pub fn kill_qemu(&mut self) -> Result<(), RigError> {
        self.qemu.kill();
        let vhost_socket = snapshot::vhost_socket(self.private.path(), self.device);
        vsock_backend::wait(&mut self.vsock_backend, &vhost_socket, self.socket.path())?;
        self.socket = OwnedSocket::claim(self.socket.path().to_owned())?;
        Ok(())
    }

    /// Starts QEMU again after [`Vm::kill_qemu`]. Returns when QEMU runs; the guest is then booting.
    ///
    /// # Errors
    ///
    /// As [`Vm::boot`].
    pub fn power_on(&mut self) -> Result<(), RigError> {
        self.qemu = start_qemu(&self.artifacts, &self.config, self.private.path())?;
        self.boots_due.store(1, Ordering::Relaxed);
        self.wait_for_monitor()
    }

    fn signal(&self, signal: Signal) -> Result<(), RigError> {
        let pid = Pid::from_raw(self.qemu_pid().cast_signed())
            .ok_or_else(|| RigError::Signal(io::ErrorKind::NotFound.into()))?;
        kill_process(pid, signal).map_err(|errno| RigError::Signal(errno.into()))
    }
}
