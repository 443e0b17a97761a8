//! Dialling a VM: connects to its Unix socket, then performs the handshake.

use crate::handshake::{HandshakeError, initiate};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

/// Longest path of a Unix socket, in bytes (`sun_path` of unix(7), without its NUL).
pub const MAX_PATH_LEN: usize = 107;

/// Failure of a dial, by layer.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The socket file does not exist.
    #[error("no socket at this path")]
    NoSocket(#[source] io::Error),
    /// The socket file exists, but no process listens on it: the VMM is gone.
    #[error("no process listens on the socket")]
    NoListener(#[source] io::Error),
    /// The socket could not be connected for another reason.
    #[error("cannot connect to the socket")]
    Connect(#[source] io::Error),
    /// The VMM does not accept the connection: its backlog is full.
    #[error("the connection is not accepted")]
    NotAccepted,
    /// The VMM accepted the connection, but does not connect it to an agent.
    #[error("handshake failed")]
    Handshake(#[source] HandshakeError),
}

/// Connects to the hybrid-vsock socket at `path` and performs the handshake for `port`, all within
/// `deadline`.
///
/// Not cancel safe; see [`initiate`].
///
/// # Errors
///
/// [`DialError`], by the layer that failed.
pub async fn dial(path: &Path, port: u32, deadline: Duration) -> Result<UnixStream, DialError> {
    let until = Instant::now() + deadline;
    let mut stream = connect(path, deadline).await?;
    let left = until.saturating_duration_since(Instant::now());
    initiate(&mut stream, port, left).await.map_err(DialError::Handshake)?;
    Ok(stream)
}

/// Connects without sending anything. The caller can inspect the socket, and then continues with
/// [`initiate`].
///
/// Cancel safe.
///
/// # Errors
///
/// [`DialError`], by the layer that failed.
pub async fn connect(path: &Path, deadline: Duration) -> Result<UnixStream, DialError> {
    timeout(deadline, UnixStream::connect(path))
        .await
        .map_err(|_| DialError::NotAccepted)?
        .map_err(connect_error)
}

fn connect_error(error: io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::NotFound => DialError::NoSocket(error),
        io::ErrorKind::ConnectionRefused => DialError::NoListener(error),
        // On a non-blocking socket, the kernel reports a full backlog at once.
        io::ErrorKind::WouldBlock => DialError::NotAccepted,
        _ => DialError::Connect(error),
    }
}
