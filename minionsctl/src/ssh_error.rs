//! The error type of the SSH commands. Imports nothing of this crate: [`Failure`](crate::failure::Failure) contains it.

use russh::keys::ssh_key;
use std::io;
use std::path::PathBuf;

/// Failure of an SSH command before or outside of a program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SshError {
    /// Missing variable: the directory of the host key is unknown.
    #[error("no directory for the SSH host key: set HOME or XDG_STATE_HOME to an absolute path")]
    NoStateDirectory,
    /// Missing variable: the directory of the SSH client's configuration is unknown.
    #[error("no directory for the configuration of ssh: set HOME to an absolute path")]
    NoHome,
    /// A file could not be read, created or replaced.
    #[error("cannot read or write {}", .path.display())]
    Write {
        /// Path of the file or directory.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The host key file has other content.
    #[error("{} contains no OpenSSH private key: remove it, and a new one is created", .path.display())]
    Key {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        source: ssh_key::Error,
    },
    /// The host key file can be read by other users.
    #[error("other users may access {} (mode {mode:03o}): run `chmod 600` on it", .path.display())]
    KeyMode {
        /// Path of the file.
        path: PathBuf,
        /// Permissions.
        mode: u32,
    },
    /// The kernel gave no random bytes for a host key.
    #[error("cannot create a host key")]
    Random(#[source] io::Error),
    /// A path cannot be written into a configuration of ssh.
    #[error(
        "the path {0:?} cannot be written into a configuration of ssh: use one without quotes and newlines"
    )]
    Path(PathBuf),
    /// The system has no SSH client.
    #[error("there is no `ssh` in PATH: install the package openssh-client")]
    NoClient,
    /// The SSH client could not be executed.
    #[error("cannot run `ssh`")]
    Client(#[source] io::Error),
    /// Standard input or output cannot be the connection to an SSH client.
    #[error("ssh-proxy speaks SSH on its standard input and output: ssh starts it as ProxyCommand")]
    Streams(#[source] io::Error),
    /// The SSH client violated the protocol, or has no algorithm in common with the server.
    #[error("the SSH connection failed")]
    Protocol(#[source] russh::Error),
    /// The guest has no user of this name.
    #[error("the guest has no user {0:?}")]
    NoUser(String),
    /// The name of the user cannot be one of a guest.
    #[error(
        "invalid user name {0:?}: must have 1 to 256 bytes, without colons and control characters"
    )]
    InvalidUser(String),
    /// The guest's database of users contains no complete entry.
    #[error(
        "the guest's entry of user {0:?} is malformed: it must have the seven fields of passwd(5)"
    )]
    MalformedUser(String),
    /// The login lookup in the guest failed.
    #[error("cannot look up user {name:?} in the guest: {reason}")]
    Lookup {
        /// Name of the user.
        name: String,
        /// Reason.
        reason: String,
    },
}
