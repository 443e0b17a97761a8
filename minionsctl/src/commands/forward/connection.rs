//! Forwarding of a connection on this machine to a target in the guest.

use crate::client::{ConnectionRequest, DaemonClient};
use crate::guest_relay::relay;
use crate::output::failure_line;
use minions_api::VmName;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

/// Target of a listener's connections.
#[derive(Debug, Clone)]
pub(super) struct ForwardTo {
    pub(super) client: Arc<DaemonClient>,
    pub(super) vm: VmName,
    pub(super) target: String,
    /// Receiver of descriptions of failed connections. While the channel is full, descriptions are dropped.
    pub(super) reports: mpsc::Sender<String>,
}

impl ForwardTo {
    /// Serves a client over TCP. A failure resets its connection.
    pub(super) async fn serve_tcp(self, mut stream: TcpStream) {
        if !self.serve(&mut stream).await {
            // With a linger time of zero, closing sends a reset.
            let _ = stream.set_zero_linger();
        }
    }

    /// Serves a client over a Unix socket, which has no reset: a client cannot tell a failure from an end.
    pub(super) async fn serve_unix(self, mut stream: UnixStream) {
        self.serve(&mut stream).await;
    }

    /// Connects to the target. Returns false if the connection failed, or did not end in both directions.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> bool {
        let request = ConnectionRequest::Target(self.target.clone());
        match relay(&self.client, &self.vm, &request, stream).await {
            Ok(is_complete) => is_complete,
            Err(failure) => {
                let reason = failure_line(&failure);
                let report = format!("{} {}: {reason}", self.vm, self.target);
                let _ = self.reports.try_send(report);
                false
            }
        }
    }
}
