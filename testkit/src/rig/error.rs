//! Errors of the rig.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// Failure to boot or control a VM.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A file of the rig directory does not exist.
    #[error(
        "the VM rig lacks its {part}: no file {}; run `cargo xtask test` (or `demo`), which sets it up",
        path.display()
    )]
    MissingFile {
        /// Description of the file.
        part: String,
        /// Path at which the file is expected.
        path: PathBuf,
    },
    /// A program is not in `PATH`.
    #[error(
        "the VM rig lacks the program {program}; run `cargo xtask test` (or `demo`), which sets it up"
    )]
    MissingProgram {
        /// Name of the program.
        program: String,
    },
    /// The VM's name is not one that the host daemon would accept.
    #[error("not a VM name: {0:?}")]
    InvalidName(String),
    /// The socket path is longer than the kernel's limit of 107 bytes.
    #[error("socket path longer than 107 bytes: {}", .0.display())]
    SocketPathTooLong(PathBuf),
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// Attempted operation, as a verb.
        action: &'static str,
        /// File of the operation.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// Name of the program.
        program: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// A program ended although it should still be running.
    #[error("{program} ended early ({status}); its output ends with:\n{log}")]
    Ended {
        /// Name of the program.
        program: &'static str,
        /// Exit status.
        status: ExitStatus,
        /// Last lines of its output.
        log: String,
    },
    /// A condition was not met in time.
    #[error("timed out after {timeout:?} waiting until {what}{}", tail(serial))]
    TimedOut {
        /// Description of the condition, as a clause.
        what: String,
        /// Length of the wait.
        timeout: Duration,
        /// Last lines of the guest's serial console; empty without a console.
        serial: String,
    },
    /// A signal could not be sent to QEMU.
    #[error("cannot signal QEMU")]
    Signal(#[source] io::Error),
    /// QEMU's monitor failed or returned an error.
    #[error("QEMU's monitor failed to execute {doing}")]
    Monitor {
        /// Command that was executed.
        doing: String,
        /// Cause.
        source: io::Error,
    },
    /// The hybrid-vsock handshake failed.
    #[error("handshake with guest port {port} on {} failed", path.display())]
    Handshake {
        /// Requested VSOCK port.
        port: u32,
        /// Path of the hybrid-vsock socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl RigError {
    /// Builds a [`RigError::Io`]; to be used with `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn tail(serial: &str) -> String {
    if serial.is_empty() {
        return String::new();
    }
    format!("; the guest's console ends with:\n{serial}")
}
