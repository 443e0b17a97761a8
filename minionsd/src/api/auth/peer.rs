//! Who is at the other end of a connection.

use super::sock_diag;
use minions_api::service::Identity;
use std::net::SocketAddr;
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
    Unix {
        uid: Option<u32>,
    },
    Tcp {
        client: SocketAddr,
        server: SocketAddr,
    },
}

impl Peer {
    /// Connected over the Unix socket. Without credentials it is nobody.
    pub(crate) fn unix(credentials: Option<UCred>) -> Self {
        let uid = credentials.map(|credentials| credentials.uid());
        Self { way: Way::Unix { uid }, identity: OnceCell::new() }
    }

    /// Connected over TCP, from `client` to us at `server`.
    pub(crate) fn tcp(client: SocketAddr, server: SocketAddr) -> Self {
        Self { way: Way::Tcp { client, server }, identity: OnceCell::new() }
    }

    /// Over TCP it may be a browser; over the Unix socket it can't.
    pub(crate) fn may_be_a_browser(&self) -> bool {
        matches!(self.way, Way::Tcp { .. })
    }

    /// On this machine.
    pub(super) fn is_local(&self) -> bool {
        match self.way {
            Way::Unix { .. } => true,
            Way::Tcp { client, server } => {
                client.ip().to_canonical().is_loopback() && server.ip().to_canonical().is_loopback()
            }
        }
    }

    /// Who it is, as the kernel says.
    pub(super) async fn identity(&self) -> Identity {
        let found = self.identity.get_or_init(|| async {
            let uid = match self.way {
                Way::Unix { uid } => uid,
                Way::Tcp { client, server } if self.is_local() => sock_diag::uid_of(client, server)
                    .unwrap_or_else(|error| {
                        tracing::warn!(%error, "the kernel doesn't say whose a connection is");
                        None
                    }),
                Way::Tcp { .. } => None,
            };
            uid.map_or(Identity::Unknown, |uid| Identity::User { uid })
        });
        found.await.clone()
    }
}
