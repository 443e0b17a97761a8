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

/// For a client for whom there is no room: to say what it wants, and to get its one answer. Short, because
/// others stand behind it who want to know at least whether the daemon lives.
const SHED_DEADLINE: Duration = Duration::from_millis(250);

/// How often an HTTP/2 client is asked whether it is still there, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// For the head of a request, and between two requests on one connection.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);

/// For a client to finish its TLS handshake.
const TLS_DEADLINE: Duration = Duration::from_secs(10);

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
    /// TLS can't be had.
    #[error("TLS can't be had")]
    Tls(#[from] TlsError),
    /// Another daemon has it.
    #[error("{} is in use by another process", .0.display())]
    UnixInUse(PathBuf),
}

/// What is served, to how many.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) app: Front,
    /// For those who are too many.
    pub(crate) shed: Front,
    /// Connections at once, of each listener.
    pub(crate) clients: usize,
    /// How long requests under way may take once the daemon is told to stop.
    pub(crate) grace: Duration,
    pub(crate) meters: Arc<Meters>,
}

/// What the daemon listens on.
#[derive(Debug)]
pub(crate) struct Listeners {
    tcp: Option<TcpListener>,
    /// On TCP only: over the Unix socket the kernel vouches for both ends.
    tls: Option<Arc<Tls>>,
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
        let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        Ok(Self { tcp, tls, unix })
    }

    pub(crate) fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Serves until `shutdown`; cancels `draining`; lets requests under way finish within the grace
    /// period, and closes what is left.
    pub(crate) async fn serve(
        self,
        served: Served,
        shutdown: impl Future<Output = ()> + Send,
        draining: CancellationToken,
    ) {
        let (address, path) = (self.tcp_addr(), self.unix.as_ref().map(|unix| &unix.path));
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
        // Left behind by a daemon that was killed. A plain file refuses too, and isn't ours.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
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

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Lets the operators' group, if there is one, connect. A service manager may have done it.
fn give_to_group(path: &Path, group: &str) -> io::Result<()> {
    let Some(group) = Group::from_name(group)? else { return Ok(()) };
    if fs::metadata(path)?.gid() == group.gid.as_raw() {
        return Ok(());
    }
    chown(path, None, Some(group.gid.as_raw()))
}

/// Reads the certificate again at each SIGHUP. Never ends.
async fn reload_on_hangup(tls: Option<&Tls>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return std::future::pending().await };
    loop {
        hangup.recv().await;
        match tls.map(Tls::reload) {
            None => tracing::info!("SIGHUP: nothing to reload"),
            Some(Ok(())) => tracing::info!("SIGHUP: certificate reloaded"),
            Some(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "SIGHUP: the old certificate stays");
            }
        }
    }
}

/// HTTP over whatever was accepted.
struct Server {
    http: Http,
    shed: Http,
    tcp_places: Places,
    unix_places: Places,
    /// Of the places for TCP.
    users: UserShares,
    graceful: GracefulShutdown,
    grace: Duration,
    meters: Arc<Meters>,
}

/// What one connection needs. A cheap clone.
#[derive(Clone)]
struct Http {
    app: Front,
    protocol: Builder<TokioExecutor>,
    /// Ends the connections that outlive the grace period.
    cut: CancellationToken,
    /// How long a connection may last in all, if it isn't a proper one.
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

    /// Accepts for ever.
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
                    let (http, watcher) = (self.at(&place), self.graceful.watcher());
                    tokio::spawn(http.serve(stream, peer, watcher, place));
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// What is served at a place.
    fn at(&self, place: &Place) -> Http {
        if place.is_normal {
            return self.http.clone();
        }
        self.meters.shed.fetch_add(1, Ordering::Relaxed);
        self.shed.clone()
    }

    /// Serves a client within its user's share. Never waits for a place: the next client may be
    /// another user's.
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
        let (http, watcher) = (self.at(&place), self.graceful.watcher());
        let Some(acceptor) = tls.map(|tls| tls.acceptor()) else {
            tokio::spawn(http.serve(stream, peer, watcher, place));
            return;
        };
        tokio::spawn(async move {
            match timeout(http.lasts.unwrap_or(TLS_DEADLINE), acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http.serve(stream, peer, watcher, place).await,
                Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
                Err(_) => tracing::debug!("no TLS handshake in time"),
            }
        });
    }

    async fn drain(self) {
        let Self { http, tcp_places, unix_places, graceful, grace, .. } = self;
        if timeout(grace, graceful.shutdown()).await.is_err() {
            let left = tcp_places.taken() + unix_places.taken();
            tracing::warn!(connections = left, "cut off: still busy after the grace period");
        }
        http.cut.cancel();
    }
}

impl Http {
    /// Serves one connection to its end, or until it is cut.
    async fn serve<S>(self, stream: S, peer: Peer, watcher: Watcher, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(FirstBytes::of(stream));
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
    tracing::warn!(%error, "a connection was not accepted");
    sleep(ACCEPT_PAUSE).await;
}
