//! Forwarding of a single connection.

use crate::client::{DaemonClient, vm_path};
use crate::failure::Failure;
use bytes::BytesMut;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use minions_api::VmName;
use minions_proto::channel::{CHUNK_LEN, Channel, ChannelMessage};
use minions_proto::forward::CloseReason;
use minions_proto::forward_client::{ForwardClient, ForwardEvent};
use minions_proto::frame::MAX_FRAME_LEN;
use reqwest::Upgraded;
use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

type GuestStream = WebSocketStream<Upgraded>;

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

    /// Connects to the target, and moves bytes both ways until both directions have ended. Returns false if the connection
    /// failed, or ended in another way: the client must not take the data for complete.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> bool {
        let path = vm_path(&self.vm, "/forward");
        let upgraded = match self.client.open_target(&path, &self.target).await {
            Ok(upgraded) => upgraded,
            Err(failure) => {
                let report = format!("{} {}: {}", self.vm, self.target, in_words(&failure));
                let _ = self.reports.try_send(report);
                return false;
            }
        };
        let config = WebSocketConfig::default().max_message_size(Some(MAX_FRAME_LEN));
        let guest = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        let (read, write) = split(stream);
        let (sink, messages) = guest.split();
        tokio::select! {
            ended = up(read, sink) => ended,
            ended = down(messages, write) => ended,
        }
    }
}

/// Moves the client's bytes to the guest. Returns only if a connection fails.
async fn up(
    mut client: impl AsyncRead + Unpin,
    mut guest: SplitSink<GuestStream, Message>,
) -> bool {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_LEN);
        let Ok(len) = client.read_buf(&mut buffer).await else { return false };
        let payload = buffer.split().freeze();
        let message = ChannelMessage { channel: Channel::Stdin, payload };
        if guest.send(Message::Binary(message.to_bytes())).await.is_err() {
            return false;
        }
        if len == 0 {
            // The client has ended its direction; the other one determines the end of the connection.
            return pending().await;
        }
    }
}

/// Moves the target's bytes to the client. Returns true if both directions have ended.
async fn down(mut guest: SplitStream<GuestStream>, mut client: impl AsyncWrite + Unpin) -> bool {
    let mut forward = ForwardClient::new(Instant::now());
    loop {
        let bytes = match guest.next().await {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            _ => return false,
        };
        let Ok(message) = ChannelMessage::decode(bytes) else { return false };
        let is_written = match forward.receive(message, Instant::now()) {
            Ok(ForwardEvent::Data(bytes)) => client.write_all(&bytes).await.is_ok(),
            Ok(ForwardEvent::TargetEnded) => client.shutdown().await.is_ok(),
            Ok(ForwardEvent::Failed(_) | ForwardEvent::Heartbeat) => true,
            Ok(ForwardEvent::Closed(reason)) => return reason == CloseReason::Ended,
            Err(_) => return false,
        };
        if !is_written {
            return false;
        }
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
