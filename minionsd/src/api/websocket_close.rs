//! The end of WebSockets: messages that are too long, and the closing handshake.

use axum::extract::ws::{CloseCode, CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::time::timeout;

/// Deadline for a client to take a last message and to close. Shorter than the daemon's wait when it stops.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// Sending half of a WebSocket.
pub(super) type ToClient = SplitSink<WebSocket, Message>;

/// Receiving half of a WebSocket.
pub(super) type FromClient = SplitStream<WebSocket>;

/// Reports whether a client's message exceeded the length limit.
pub(super) fn is_too_long(error: &axum::Error) -> bool {
    use std::error::Error;
    // axum does not expose the type of the source, so its text is compared.
    error.source().is_some_and(|below| below.to_string().starts_with("Space limit exceeded"))
}

/// Closes the WebSocket, and waits up to [`FAREWELL`] for the client's answer.
pub(super) async fn close(socket: WebSocket, code: CloseCode, reason: &'static str) {
    let (to_client, from_client) = socket.split();
    close_halves(to_client, from_client, code, reason).await;
}

/// Closes the WebSocket with these halves, as [`close`].
pub(super) async fn close_halves(
    mut to_client: ToClient,
    mut from_client: FromClient,
    code: CloseCode,
    reason: &'static str,
) {
    let frame = CloseFrame { code, reason: reason.into() };
    let _ = timeout(FAREWELL, async {
        if to_client.send(Message::Close(Some(frame))).await.is_ok() {
            // Discards messages that the client sent before it received the Close.
            while let Some(Ok(_)) = from_client.next().await {}
        }
    })
    .await;
}
