//! Who is at the other end of a connection.

use super::sock_diag;
use minions_api::service::Identity;
use rustix::fs::fstat;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::net::unix::UCred;
use tokio::sync::OnceCell;

/// One connection's other end. What the kernel says of it is asked for once, when it is needed.
#[derive(Debug)]
pub(crate) struct Peer {
    way: Way,
    identity: OnceCell<Identity>,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// The kernel told its credentials when it connected.
    Unix { uid: Option<u32> },
    /// `inode` is our own socket's.
    Tcp { client: SocketAddr, server: SocketAddr, inode: u64 },
}

impl Peer {
    /// Connected over the Unix socket. Without credentials it is nobody.
    pub(crate) fn unix(credentials: Option<UCred>) -> Self {
        let uid = credentials.map(|credentials| credentials.uid());
        Self { way: Way::Unix { uid }, identity: OnceCell::new() }
    }

    /// Connected over TCP.
    ///
    /// # Errors
    ///
    /// The stream's: without addresses it is gone already.
    pub(crate) fn tcp(stream: &TcpStream) -> io::Result<Self> {
        let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
        let inode = fstat(stream)?.st_ino;
        Ok(Self { way: Way::Tcp { client, server, inode }, identity: OnceCell::new() })
    }

    /// Over TCP it may be a browser; over the Unix socket it can't.
    pub(crate) fn may_be_a_browser(&self) -> bool {
        matches!(self.way, Way::Tcp { .. })
    }

    /// On this machine.
    pub(super) fn is_local(&self) -> bool {
        match self.way {
            Way::Unix { .. } => true,
            Way::Tcp { client, server, .. } => {
                client.ip().to_canonical().is_loopback() && server.ip().to_canonical().is_loopback()
            }
        }
    }

    /// Who it is, as the kernel says.
    pub(crate) async fn identity(&self) -> Identity {
        let found = self.identity.get_or_init(|| async {
            let uid = match self.way {
                Way::Unix { uid } => uid,
                Way::Tcp { client, server, inode } if self.is_local() => {
                    sock_diag::uid_of(client, server, inode).unwrap_or_else(|error| {
                        tracing::warn!(%error, "the kernel doesn't say whose a connection is");
                        None
                    })
                }
                Way::Tcp { .. } => None,
            };
            uid.map_or(Identity::Unknown, |uid| Identity::User { uid })
        });
        found.await.clone()
    }
}
