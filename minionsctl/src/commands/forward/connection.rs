//! Forwarding of a single connection.

use crate::client::{DaemonClient, vm_path};
use crate::failure::Failure;
use minions_api::VmName;
use std::error::Error;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

/// Buffer for one direction, in bytes.
const BUFFER: usize = 64 * 1024;

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

    /// Serves a client over a Unix socket.
    pub(super) async fn serve_unix(self, mut stream: UnixStream) {
        self.serve(&mut stream).await;
    }

    /// Moves bytes both ways until both directions have ended. Returns false if the connection to the target failed.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> bool {
        let mut guest =
            match self.client.connect_target(&vm_path(&self.vm, "/forward"), &self.target).await {
                Ok(guest) => guest,
                Err(failure) => {
                    let report = format!("{} {}: {}", self.vm, self.target, in_words(&failure));
                    let _ = self.reports.try_send(report);
                    return false;
                }
            };
        copy_bidirectional_with_sizes(stream, &mut guest, BUFFER, BUFFER).await.is_ok()
    }
}

/// Describes the failure and its causes.
fn in_words(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
