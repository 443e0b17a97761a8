//! Listeners, HTTP connections, and their drain.

use crate::api::auth::Peer;
use crate::config::Config;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use nix::unistd::Group;
use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Clients connected at once. A further one waits in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1024;

/// For the head of a request, and between two requests on one connection.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);

/// Out of descriptors, most likely: others must give some back first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The owner and the group may connect.
const UNIX_SOCKET_MODE: u32 = 0o660;

/// A listener that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A TCP address.
    #[error("can't listen on {address}")]
    Tcp {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A Unix socket.
    #[error("can't listen on {}", .path.display())]
    Unix {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("{} is in use by another process", .0.display())]
    UnixInUse(PathBuf),
}

/// What the daemon listens on.
#[derive(Debug)]
pub(crate) struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<UnixSocket>,
}

/// A Unix socket that takes its file with it.
#[derive(Debug)]
struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

impl Listeners {
    pub(crate) async fn bind(config: &Config) -> Result<Self, BindError> {
        let tcp = match config.listen {
            Some(address) => {
                let tcp = TcpListener::bind(address).await;
                Some(tcp.map_err(|source| BindError::Tcp { address, source })?)
            }
            None => None,
        };
        let unix = match &config.unix_socket {
            Some(path) => Some(bind_unix(path, &config.operator_group).await?),
            None => None,
        };
        Ok(Self { tcp, unix })
    }

    pub(crate) fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Serves `app` until `shutdown`; cancels `draining`; lets requests under way finish within
    /// `grace`, and closes what is left.
    pub(crate) async fn serve(
        self,
        app: Router,
        shutdown: impl Future<Output = ()> + Send,
        draining: CancellationToken,
        grace: Duration,
    ) {
        let (address, path) = (self.tcp_addr(), self.unix.as_ref().map(|unix| &unix.path));
        tracing::info!(tcp = ?address, unix = ?path, "serving");
        let server = Server::new(app, grace);
        tokio::select! {
            () = shutdown => {}
            () = server.accept_all(&self) => {}
        }
        tracing::info!("stopping");
        draining.cancel();
        drop(self);
        server.drain().await;
    }
}

async fn bind_unix(path: &Path, group: &str) -> Result<UnixSocket, BindError> {
    let failed = |source| BindError::Unix { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match UnixStream::connect(path).await {
        Ok(_) => return Err(BindError::UnixInUse(path.to_owned())),
        // Left behind by a daemon that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let socket = UnixSocket { listener, path: path.to_owned() };
    // Before the group may connect: until then it is ours alone.
    give_to_group(path, group).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(UNIX_SOCKET_MODE)).map_err(failed)?;
    Ok(socket)
}

/// Lets the operators' group, if there is one, connect. A service manager may have done it.
fn give_to_group(path: &Path, group: &str) -> io::Result<()> {
    let Some(group) = Group::from_name(group)? else { return Ok(()) };
    if fs::metadata(path)?.gid() == group.gid.as_raw() {
        return Ok(());
    }
    chown(path, None, Some(group.gid.as_raw()))
}

/// HTTP over whatever was accepted.
struct Server {
    app: Router,
    http: Builder<TokioExecutor>,
    connections: Arc<Semaphore>,
    graceful: GracefulShutdown,
    grace: Duration,
    /// Ends the connections that outlive the grace period.
    cut: CancellationToken,
}

impl Server {
    fn new(app: Router, grace: Duration) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
        http.http2().timer(TokioTimer::new()).max_concurrent_streams(128);
        Self {
            app,
            http,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            graceful: GracefulShutdown::new(),
            grace,
            cut: CancellationToken::new(),
        }
    }

    /// Accepts for ever.
    async fn accept_all(&self, listeners: &Listeners) {
        loop {
            let Ok(place) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                stream = accept_tcp(listeners.tcp.as_ref()) => stream.map(Accepted::Tcp),
                stream = accept_unix(listeners.unix.as_ref()) => stream.map(Accepted::Unix),
            };
            match accepted {
                Ok(Accepted::Tcp(stream)) => {
                    stream.set_nodelay(true).ok();
                    // Without addresses it is gone already.
                    if let (Ok(client), Ok(server)) = (stream.peer_addr(), stream.local_addr()) {
                        self.spawn(stream, Peer::tcp(client, server), place);
                    }
                }
                Ok(Accepted::Unix(stream)) => {
                    let peer = Peer::unix(stream.peer_cred().ok());
                    self.spawn(stream, peer, place);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn<S>(&self, stream: S, peer: Peer, place: tokio::sync::OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Arc::new(peer);
        let app = self.app.clone().map_request(move |mut request: hyper::Request<_>| {
            request.extensions_mut().insert(Arc::clone(&peer));
            request
        });
        let connection = self
            .http
            .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(app))
            .into_owned();
        let connection = self.graceful.watch(connection);
        let cut = self.cut.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                },
                () = cut.cancelled() => {}
            }
        });
    }

    async fn drain(self) {
        let Self { graceful, connections, grace, cut, .. } = self;
        if timeout(grace, graceful.shutdown()).await.is_err() {
            let left = MAX_CONNECTIONS.saturating_sub(connections.available_permits());
            tracing::warn!(connections = left, "cut off: still busy after the grace period");
        }
        cut.cancel();
    }
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn accept_tcp(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn accept_unix(socket: Option<&UnixSocket>) -> io::Result<UnixStream> {
    match socket {
        Some(socket) => socket.listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}
