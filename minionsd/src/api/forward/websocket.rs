//! The client's side of a forward as channel messages over a WebSocket.

use super::super::websocket_close::{FAREWELL, FromClient, ToClient, close_halves};
use crate::forward::{ClientReader, ClientWriter, ForwardEnd, ForwardInput};
use axum::extract::ws::{CloseCode, Message as Packet, WebSocket, close_code};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use minions_proto::channel::{Channel, ChannelMessage};
use minions_proto::forward::{
    CloseReason, ForwardAgentControl, ForwardHostControl, control, decode_control,
};
use tokio::time::timeout;

/// Reads the client's messages.
pub(super) struct MessageReader {
    stream: FromClient,
    ended: bool,
}

/// Writes messages to the client.
pub(super) struct MessageWriter(ToClient);

/// Splits the client's WebSocket.
pub(super) fn halves(socket: WebSocket) -> (MessageReader, MessageWriter) {
    let (sink, stream) = socket.split();
    (MessageReader { stream, ended: false }, MessageWriter(sink))
}

impl ClientReader for MessageReader {
    async fn next(&mut self) -> ForwardInput {
        loop {
            let bytes = match self.stream.next().await {
                Some(Ok(Packet::Binary(bytes))) => bytes,
                Some(Ok(Packet::Ping(_) | Packet::Pong(_))) => continue,
                Some(Ok(Packet::Text(_))) => {
                    return ForwardInput::Breach("messages must be binary");
                }
                Some(Ok(Packet::Close(_)) | Err(_)) | None => return ForwardInput::Gone,
            };
            let Ok(message) = ChannelMessage::decode(bytes) else {
                return ForwardInput::Breach("a message must begin with a channel byte");
            };
            match message.channel {
                Channel::Stdin if self.ended => {
                    return ForwardInput::Breach("data after the end of channel 0");
                }
                Channel::Stdin if message.payload.is_empty() => {
                    self.ended = true;
                    return ForwardInput::End;
                }
                Channel::Stdin => return ForwardInput::Data(message.payload),
                Channel::Control => match decode_control::<ForwardHostControl>(&message) {
                    Ok(ForwardHostControl::Leave) => return ForwardInput::Gone,
                    // The daemon sends heartbeats to the agent itself.
                    Ok(ForwardHostControl::Heartbeat | ForwardHostControl::Unknown) => {}
                    Err(_) => return ForwardInput::Breach("malformed control message"),
                },
                Channel::Stdout | Channel::Stderr => {
                    return ForwardInput::Breach("no such channel towards the target");
                }
            }
        }
    }
}

impl ClientWriter for MessageWriter {
    async fn data(&mut self, payload: Bytes) -> bool {
        self.send(&ChannelMessage { channel: Channel::Stdout, payload }).await
    }

    async fn end(&mut self) -> bool {
        self.data(Bytes::new()).await
    }
}

impl MessageWriter {
    async fn send(&mut self, message: &ChannelMessage) -> bool {
        self.0.send(Packet::Binary(message.to_bytes())).await.is_ok()
    }

    /// Sends the messages that end a forward: `closed`, if the agent gave a reason, and the Close frame. `end` is
    /// `None` if the daemon stops.
    pub(super) async fn close(mut self, end: Option<&ForwardEnd>, reader: MessageReader) {
        let (code, reason) = close_frame(end);
        if let Some(reason) = closed(end) {
            let closed = ForwardAgentControl::Closed { reason };
            let _ = timeout(FAREWELL, self.send(&control(&closed))).await;
        }
        close_halves(self.0, reader.stream, code, reason).await;
    }
}

/// Returns the reason for the last message, if the agent gave one.
fn closed(end: Option<&ForwardEnd>) -> Option<CloseReason> {
    match end {
        Some(ForwardEnd::Closed(reason)) => Some(*reason),
        Some(
            ForwardEnd::Agent(_)
            | ForwardEnd::Protocol(_)
            | ForwardEnd::ClientGone
            | ForwardEnd::Breach(_),
        )
        | None => None,
    }
}

fn close_frame(end: Option<&ForwardEnd>) -> (CloseCode, &'static str) {
    match end {
        Some(ForwardEnd::Closed(_) | ForwardEnd::ClientGone) => (close_code::NORMAL, ""),
        Some(ForwardEnd::Agent(_)) => (close_code::ERROR, "connection_lost"),
        Some(ForwardEnd::Protocol(_)) => (close_code::ERROR, "agent_protocol_error"),
        Some(ForwardEnd::Breach(what)) => (close_code::PROTOCOL, what),
        None => (close_code::RESTART, "shutting_down"),
    }
}
