//! What can go wrong with the rig.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// Why a VM could not be booted or handled.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A file of the rig directory does not exist.
    #[error(
        "the VM rig lacks its {part}: no file {}; run `cargo xtask test` (or `demo`), which sets it up",
        path.display()
    )]
    MissingFile {
        /// What the file is, in words.
        part: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program is not in `PATH`.
    #[error(
        "the VM rig lacks the program {program}; run `cargo xtask test` (or `demo`), which sets it up"
    )]
    MissingProgram {
        /// The program's name.
        program: String,
    },
    /// The VM's name is not one that the host daemon would take.
    #[error("not a VM name: {0:?}")]
    InvalidName(String),
    /// The kernel takes Unix socket paths of at most 107 bytes.
    #[error("socket path longer than 107 bytes: {}", .0.display())]
    SocketPathTooLong(PathBuf),
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program's name.
        program: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A program ended that should have kept running.
    #[error("{program} ended early ({status}); it said:\n{log}")]
    Ended {
        /// The program's name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The tail of its output.
        log: String,
    },
    /// A condition did not come about in time.
    #[error("{what}: not within {timeout:?}{}", tail(serial))]
    TimedOut {
        /// The condition, in words.
        what: String,
        /// How long it was waited for.
        timeout: Duration,
        /// The tail of the guest's serial console; empty where there is none.
        serial: String,
    },
    /// A signal could not be sent to QEMU.
    #[error("cannot signal QEMU")]
    Signal(#[source] io::Error),
    /// QEMU's monitor failed or refused.
    #[error("QEMU's monitor: {doing}")]
    Monitor {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The hybrid-vsock handshake failed.
    #[error("handshake with guest port {port} on {}", path.display())]
    Handshake {
        /// The VSOCK port asked for.
        port: u32,
        /// The hybrid-vsock socket.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl RigError {
    /// Shorthand for [`RigError::Io`], to be used with `map_err`.
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
