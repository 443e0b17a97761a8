//! The peer of a connection, as identified by the kernel.

use super::{peer_groups, sock_diag};
use minions_api::service::Identity;
use rustix::fs::fstat;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;

/// The peer of one connection. Its identity is looked up once, on first use.
#[derive(Debug)]
pub(crate) struct Peer {
    way: PeerTransport,
    identity: OnceCell<Identity>,
}

#[derive(Debug, Clone)]
enum PeerTransport {
    /// Unix socket, with the credentials that the kernel recorded at `connect` (`SO_PEERCRED`, `SO_PEERGROUPS`): the
    /// user, and all groups.
    Unix { uid: Option<u32>, groups: Vec<u32> },
    /// TCP; `inode` is the inode of the daemon's own socket.
    Tcp { client: SocketAddr, server: SocketAddr, inode: u64 },
}

impl Peer {
    /// Creates the peer of a connection over the Unix socket. Without credentials, its identity is unknown.
    pub(crate) fn unix(stream: &UnixStream) -> Self {
        let Ok(credentials) = stream.peer_cred() else { return Self::unknown() };
        // A kernel without SO_PEERGROUPS still reports the primary group.
        let mut groups = peer_groups::of(stream.as_fd()).unwrap_or_default();
        groups.push(credentials.gid());
        Self {
            way: PeerTransport::Unix { uid: Some(credentials.uid()), groups },
            identity: OnceCell::new(),
        }
    }

    /// Creates the peer of a connection over the Unix socket for which the kernel reports no credentials.
    pub(crate) fn unknown() -> Self {
        Self {
            way: PeerTransport::Unix { uid: None, groups: Vec::new() },
            identity: OnceCell::new(),
        }
    }

    /// Creates the peer of a connection over TCP.
    ///
    /// # Errors
    ///
    /// The connection is closed already and has no addresses.
    pub(crate) fn tcp(stream: &TcpStream) -> io::Result<Self> {
        let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
        let inode = fstat(stream)?.st_ino;
        Ok(Self { way: PeerTransport::Tcp { client, server, inode }, identity: OnceCell::new() })
    }

    /// Reports whether the client can be a browser: browsers cannot use Unix sockets.
    pub(crate) fn may_be_a_browser(&self) -> bool {
        matches!(self.way, PeerTransport::Tcp { .. })
    }

    /// Reports whether the connection came over the Unix socket.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.way, PeerTransport::Unix { .. })
    }

    /// Returns the groups of the process that connected; known for the Unix socket only.
    pub(super) fn groups(&self) -> &[u32] {
        match &self.way {
            PeerTransport::Unix { groups, .. } => groups,
            PeerTransport::Tcp { .. } => &[],
        }
    }

    /// Reports whether the process that connected is on this host.
    pub(super) fn is_local(&self) -> bool {
        match self.way {
            PeerTransport::Unix { .. } => true,
            PeerTransport::Tcp { client, server, .. } => {
                client.ip().to_canonical().is_loopback() && server.ip().to_canonical().is_loopback()
            }
        }
    }

    /// Returns the uid of the process that connected, if the kernel knows it.
    pub(crate) async fn identity(&self) -> Identity {
        let found = self.identity.get_or_init(|| async {
            let uid = match self.way {
                PeerTransport::Unix { uid, .. } => uid,
                PeerTransport::Tcp { client, server, inode } if self.is_local() => {
                    sock_diag::uid_of(client, server, inode).unwrap_or_else(|error| {
                        tracing::warn!(%error, "cannot look up the owner of a loopback connection (sock_diag)");
                        None
                    })
                }
                PeerTransport::Tcp { .. } => None,
            };
            uid.map_or(Identity::Unknown, |uid| Identity::User { uid })
        });
        found.await.clone()
    }
}
