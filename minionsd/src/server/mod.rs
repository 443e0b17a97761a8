//! Listeners, HTTP connections, and their drain.

mod first_bytes;
mod places;
mod shares;

use crate::api::Front;
use crate::api::auth::Peer;
use crate::config::Config;
use crate::metrics::Meters;
use crate::tls::{Tls, TlsError};
use first_bytes::FirstBytes;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use nix::unistd::Group;
use places::{Place, Places};
use shares::UserShares;
use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Total lifetime of a connection beyond the limit: one request and one answer. Short, because other clients wait for
/// the same few slots, for example to check `/healthz`.
const SHED_DEADLINE: Duration = Duration::from_millis(250);

/// Interval of HTTP/2 keep-alive pings, and deadline for their answers.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Deadline for the head of a request, which includes the idle time between two requests on one connection.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);

/// Deadline for a client's TLS handshake.
const TLS_DEADLINE: Duration = Duration::from_secs(10);

/// Pause after a failed `accept`: the process is most likely out of descriptors until other connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// File mode of the Unix socket: the owner and the group may connect.
const UNIX_SOCKET_MODE: u32 = 0o660;

/// Failure to set up a listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The TCP address cannot be bound.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The Unix socket cannot be created.
    #[error("cannot listen on {}", .path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// Another process, probably another daemon, listens on the Unix socket.
    #[error("{} is in use by another process", .0.display())]
    UnixInUse(PathBuf),
}

/// Services and limits of the server.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) app: Front,
    /// Service for clients beyond the connection limit.
    pub(crate) shed: Front,
    /// Connection limit of each listener.
    pub(crate) clients: usize,
    /// Time that requests in progress have to finish once the daemon is told to stop.
    pub(crate) grace: Duration,
    pub(crate) meters: Arc<Meters>,
}

/// The daemon's listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    tcp: Option<TcpListener>,
    /// TLS of the TCP listener. The Unix socket needs none: the kernel identifies its callers.
    tls: Option<Arc<Tls>>,
    unix: Option<UnixSocket>,
}

/// A Unix socket whose file is removed on drop.
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
        let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        Ok(Self { tcp, tls, unix })
    }

    pub(crate) fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Serves until `shutdown` is ready, then cancels `draining`, lets requests in progress finish within the grace
    /// period, and closes the remaining connections.
    pub(crate) async fn serve(
        self,
        served: Served,
        shutdown: impl Future<Output = ()> + Send,
        draining: CancellationToken,
    ) {
        let address = self.tcp_addr();
        let path = self.unix.as_ref().map(|unix| &unix.path);
        tracing::info!(tcp = ?address, unix = ?path, "serving");
        let server = Server::new(served);
        tokio::select! {
            () = shutdown => {}
            () = server.accept_all(&self) => {}
            () = reload_on_hangup(self.tls.as_deref()) => {}
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
        // The socket of a daemon that was killed. Connecting to a plain file fails in the same way, but it must stay.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
            fs::remove_file(path).map_err(failed)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let socket = UnixSocket { listener, path: path.to_owned() };
    // Before the mode lets the group connect; until then only the owner can.
    give_to_group(path, group).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(UNIX_SOCKET_MODE)).map_err(failed)?;
    Ok(socket)
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Gives the socket to the operators' group, if that group exists. A service manager may have done so already.
fn give_to_group(path: &Path, group: &str) -> io::Result<()> {
    let Some(group) = Group::from_name(group)? else { return Ok(()) };
    if fs::metadata(path)?.gid() == group.gid.as_raw() {
        return Ok(());
    }
    chown(path, None, Some(group.gid.as_raw()))
}

/// Reloads the certificate at each SIGHUP. Never returns.
async fn reload_on_hangup(tls: Option<&Tls>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return std::future::pending().await };
    loop {
        hangup.recv().await;
        match tls.map(Tls::reload) {
            None => tracing::info!("SIGHUP: nothing to reload"),
            Some(Ok(())) => tracing::info!("SIGHUP: certificate reloaded"),
            Some(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "SIGHUP: cannot reload the certificate; the current one stays in use"
                );
            }
        }
    }
}

/// HTTP server for accepted connections.
struct Server {
    http: Http,
    shed: Http,
    tcp_places: Places,
    unix_places: Places,
    /// Division of the TCP slots among users.
    users: UserShares,
    graceful: GracefulShutdown,
    grace: Duration,
    meters: Arc<Meters>,
}

/// Service and protocol settings of one connection. Cheap to clone.
#[derive(Clone)]
struct Http {
    app: Front,
    protocol: Builder<TokioExecutor>,
    /// Closes the connections that outlive the grace period.
    cut: CancellationToken,
    /// Total lifetime of a connection beyond the limit; `None` for regular connections.
    lasts: Option<Duration>,
}

impl Server {
    fn new(served: Served) -> Self {
        let Served { app, shed, clients, grace, meters } = served;
        let mut protocol = Builder::new(TokioExecutor::new());
        protocol.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let mut brief = protocol.clone();
        brief.http1().keep_alive(false);
        let cut = CancellationToken::new();
        let lasts = Some(SHED_DEADLINE);
        Self {
            shed: Http { app: shed, protocol: brief, cut: cut.clone(), lasts },
            http: Http { app, protocol, cut, lasts: None },
            tcp_places: Places::new(clients),
            unix_places: Places::new(clients),
            users: UserShares::new(clients),
            graceful: GracefulShutdown::new(),
            grace,
            meters,
        }
    }

    /// Accepts connections on all listeners, forever.
    async fn accept_all(&self, listeners: &Listeners) {
        tokio::join!(
            self.accept_tcp(listeners.tcp.as_ref(), listeners.tls.as_ref()),
            self.accept_unix(listeners.unix.as_ref()),
        );
    }

    async fn accept_tcp(&self, listener: Option<&TcpListener>, tls: Option<&Arc<Tls>>) {
        let Some(listener) = listener else { return std::future::pending().await };
        loop {
            let Some(mut place) = self.tcp_places.any().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    self.tcp_places.improve(&mut place);
                    self.admit_tcp(stream, tls, place).await;
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    async fn accept_unix(&self, socket: Option<&UnixSocket>) {
        let Some(UnixSocket { listener, .. }) = socket else { return std::future::pending().await };
        loop {
            let Some(mut place) = self.unix_places.any().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    self.unix_places.improve(&mut place);
                    let peer = Peer::unix(&stream);
                    let http = self.at(&place);
                    let watcher = self.graceful.watcher();
                    tokio::spawn(http.serve(stream, peer, watcher, place));
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Returns the service for a slot, and counts connections beyond the limit.
    fn at(&self, place: &Place) -> Http {
        if place.is_normal {
            return self.http.clone();
        }
        self.meters.shed.fetch_add(1, Ordering::Relaxed);
        self.shed.clone()
    }

    /// Serves a client within its user's share. Never waits for a slot, because the next client may belong to another
    /// user.
    async fn admit_tcp(&self, stream: TcpStream, tls: Option<&Arc<Tls>>, mut place: Place) {
        let Ok(peer) = Peer::tcp(&stream) else { return };
        if place.is_normal {
            match self.users.count(&peer, self.tcp_places.taken()).await {
                Some(counted) => place.counted = Some(counted),
                None => {
                    let Some(overflow) = self.tcp_places.only_overflow() else {
                        self.meters.shed.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    place = overflow;
                }
            }
        }
        self.spawn_tcp(stream, peer, tls, place);
    }

    fn spawn_tcp(&self, stream: TcpStream, peer: Peer, tls: Option<&Arc<Tls>>, place: Place) {
        stream.set_nodelay(true).ok();
        let http = self.at(&place);
        let watcher = self.graceful.watcher();
        let Some(acceptor) = tls.map(|tls| tls.acceptor()) else {
            tokio::spawn(http.serve(stream, peer, watcher, place));
            return;
        };
        tokio::spawn(async move {
            match timeout(http.lasts.unwrap_or(TLS_DEADLINE), acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http.serve(stream, peer, watcher, place).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake timed out"),
            }
        });
    }

    async fn drain(self) {
        let Self { http, tcp_places, unix_places, graceful, grace, .. } = self;
        if timeout(grace, graceful.shutdown()).await.is_err() {
            let left = tcp_places.taken() + unix_places.taken();
            tracing::warn!(
                connections = left,
                "connections still busy after the grace period were cut off"
            );
        }
        http.cut.cancel();
    }
}

impl Http {
    /// Serves one connection until it ends or is cut off.
    async fn serve<S>(self, stream: S, peer: Peer, watcher: Watcher, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(FirstBytes::of(stream, HEADER_DEADLINE));
        let connection = self.protocol.serve_connection_with_upgrades(stream, self.app.to(peer));
        let lasts = self.lasts;
        let expired = async {
            match lasts {
                Some(lasts) => sleep(lasts).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = watcher.watch(connection.into_owned()) => if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            },
            () = self.cut.cancelled() => {}
            () = expired => {}
        }
        drop(place);
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    sleep(ACCEPT_PAUSE).await;
}
