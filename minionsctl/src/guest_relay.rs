//! Bytes between a connection on this machine and one in a guest.

use crate::client::{ConnectionRequest, DaemonClient};
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
use std::future::pending;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Number of bytes that are read from the daemon at a time. Each connection keeps a buffer of this length.
const READ_BUFFER: usize = 16 * 1024;

type GuestStream = WebSocketStream<Upgraded>;

/// Opens the connection in the guest, and moves bytes both ways until both directions have ended. Returns false if a
/// connection failed, or ended in another way: the other side must not take the data for complete.
///
/// # Errors
///
/// The connection in the guest was not opened.
pub(crate) async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    client: &DaemonClient,
    vm: &VmName,
    request: &ConnectionRequest,
    stream: &mut S,
) -> Result<bool, Failure> {
    let upgraded = client.open_connection(vm, request).await?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME_LEN))
        .read_buffer_size(READ_BUFFER);
    let guest = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
    let (read, write) = split(stream);
    let (sink, messages) = guest.split();
    Ok(tokio::select! {
        ended = up(read, sink) => ended,
        ended = down(messages, write) => ended,
    })
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
