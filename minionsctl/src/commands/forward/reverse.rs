//! Forwarding of a connection in the guest to a target on this machine.

use crate::cli::HostTarget;
use crate::client::DaemonClient;
use crate::guest_listener::{ConnectionServer, PendingConnection};
use crate::guest_relay::relay;
use crate::output::failure_line;
use minions_api::VmName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Deadline for the connection to a target. Shorter than the time for which a connection waits in the guest.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Target on this machine for the connections of a listener in the guest.
#[derive(Debug, Clone)]
pub(super) struct ReverseForward {
    pub(super) client: Arc<DaemonClient>,
    pub(super) vm: VmName,
    pub(super) target: HostTarget,
    /// Receiver of descriptions of failures. While the channel is full, descriptions are dropped.
    pub(super) reports: mpsc::Sender<String>,
}

/// Connection to a target on this machine.
enum HostStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl ConnectionServer for ReverseForward {
    async fn serve(self, connection: PendingConnection) {
        let dialed = timeout(CONNECT_DEADLINE, dial(&self.target)).await;
        match dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(HostStream::Tcp(mut stream)) => {
                let _ = stream.set_nodelay(true);
                if !self.relay(&connection, &mut stream).await {
                    // With a linger time of zero, closing sends a reset.
                    let _ = stream.set_zero_linger();
                }
            }
            Ok(HostStream::Unix(mut stream)) => _ = self.relay(&connection, &mut stream).await,
            Err(error) => {
                self.report(format!("{} {}: cannot connect: {error}", self.vm, self.target));
                connection.refuse().await;
            }
        }
    }

    fn report(&self, message: String) {
        let _ = self.reports.try_send(message);
    }
}

impl ReverseForward {
    /// Takes the connection. Returns false if it failed, or did not end in both directions.
    async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: &PendingConnection,
        stream: &mut S,
    ) -> bool {
        match relay(&self.client, &self.vm, &connection.request(), stream).await {
            Ok(is_complete) => is_complete,
            Err(failure) => {
                self.report(format!("{}: {}", self.vm, failure_line(&failure)));
                // Otherwise the program in the guest would wait until the agent's deadline.
                connection.refuse().await;
                false
            }
        }
    }
}

async fn dial(target: &HostTarget) -> io::Result<HostStream> {
    match target {
        HostTarget::Tcp(host, port) => {
            TcpStream::connect((host.as_str(), *port)).await.map(HostStream::Tcp)
        }
        HostTarget::Unix(path) => UnixStream::connect(path).await.map(HostStream::Unix),
    }
}
