//! Listeners of `forward`.

use super::connection::ForwardTo;
use crate::cli::ListenAddress;
use crate::failure::Failure;
use crate::heap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Pause after an `accept` that failed for lack of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Number of connections after whose end freed memory is returned to the kernel.
const TRIM_AFTER: usize = 32;

/// Listening socket.
#[derive(Debug)]
pub(super) enum ForwardListener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// File of a Unix socket. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl fmt::Display for ForwardListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "{address}"),
            Self::Unix(_, file) => write!(f, "{}", file.0.display()),
        }
    }
}

impl ForwardListener {
    /// Listens on the address.
    ///
    /// # Errors
    ///
    /// [`Failure::Bind`], with the address.
    pub(super) fn bind(address: &ListenAddress) -> Result<Self, Failure> {
        let named = |name: String| move |source| Failure::Bind { address: name, source };
        match address {
            ListenAddress::Tcp(address) => {
                let bound = std::net::TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    let bound = listener.local_addr()?;
                    Ok(Self::Tcp(TcpListener::from_std(listener)?, bound))
                });
                bound.map_err(named(address.to_string()))
            }
            ListenAddress::Unix(path) => bind_unix(path).map_err(named(path.display().to_string())),
        }
    }

    /// Accepts connections. `places` limits their number at a time.
    ///
    /// # Errors
    ///
    /// The listening socket cannot accept connections any more.
    pub(super) async fn serve(self, to: ForwardTo, places: Arc<Semaphore>) -> io::Result<()> {
        let (mut connections, mut ended) = (JoinSet::new(), 0);
        loop {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let accepted = loop {
                tokio::select! {
                    accepted = self.accept() => break accepted,
                    // Frees the memory of a connection that has ended.
                    Some(_) = connections.join_next() => {
                        ended += 1;
                        if ended >= TRIM_AFTER && connections.len() < TRIM_AFTER {
                            ended = 0;
                            heap::trim();
                        }
                    }
                }
            };
            let to = to.clone();
            match accepted {
                Ok(AcceptedStream::Tcp(stream)) => {
                    _ = connections.spawn(async move {
                        let _ = stream.set_nodelay(true);
                        to.serve_tcp(stream).await;
                        drop(place);
                    })
                }
                Ok(AcceptedStream::Unix(stream)) => {
                    _ = connections.spawn(async move {
                        to.serve_unix(stream).await;
                        drop(place);
                    })
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Accepts a connection.
    ///
    /// Cancel safe.
    async fn accept(&self) -> io::Result<AcceptedStream> {
        match self {
            Self::Tcp(listener, _) => Ok(AcceptedStream::Tcp(listener.accept().await?.0)),
            Self::Unix(listener, _) => Ok(AcceptedStream::Unix(listener.accept().await?.0)),
        }
    }
}

/// Connection of a client of the listener.
enum AcceptedStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Listens on a path. Replaces a socket on which no process listens any more, but no other file.
fn bind_unix(path: &Path) -> io::Result<ForwardListener> {
    let listener = match StdUnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            std::fs::remove_file(path)?;
            StdUnixListener::bind(path)?
        }
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    let file = SocketFile(path.to_owned());
    Ok(ForwardListener::Unix(UnixListener::from_std(listener)?, file))
}

fn is_abandoned(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    is_socket && refused
}
