//! Dialling a VM: its Unix socket, then the handshake.

use crate::handshake::{HandshakeError, initiate};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

/// The longest path of a Unix socket, in bytes (`sun_path` of unix(7), without its NUL).
pub const MAX_PATH_LEN: usize = 107;

/// Which layer failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is no such socket file.
    #[error("no socket at this path")]
    NoSocket(#[source] io::Error),
    /// The file is there, but nobody listens behind it: the VMM is gone.
    #[error("nobody listens on the socket")]
    NoListener(#[source] io::Error),
    /// The socket could not be connected for another reason.
    #[error("socket can't be connected")]
    Connect(#[source] io::Error),
    /// The VMM doesn't take the connection: its backlog is full.
    #[error("the connection is not accepted")]
    NotAccepted,
    /// The VMM took the connection, but it doesn't lead to an agent.
    #[error("handshake failed")]
    Handshake(#[source] HandshakeError),
}

/// Connects to the hybrid-vsock socket at `path` and shakes hands for `port`, all within
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

/// Connects, and says nothing yet: whoever wants to look at the socket first does so now, and then goes
/// on with [`initiate`].
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
        // Without blocking, the kernel says at once that a Unix socket's backlog is full.
        io::ErrorKind::WouldBlock => DialError::NotAccepted,
        _ => DialError::Connect(error),
    }
}
