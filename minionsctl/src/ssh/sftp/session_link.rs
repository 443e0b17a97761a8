//! The file session of a subsystem: messages over minionsd's WebSocket.

use super::error::SftpError;
use crate::client::vm_path;
use crate::failure::Failure;
use crate::link_error::LinkError;
use crate::target::Target;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use minions_proto::file_session::{MAX_CONTENT_LEN, SessionMessage};
use reqwest::Upgraded;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Sending half of a session.
pub(super) struct SessionSender(SplitSink<WebSocketStream<Upgraded>, WsMessage>);

/// Receiving half of a session.
pub(super) struct SessionReceiver(SplitStream<WebSocketStream<Upgraded>>);

/// Opens a session as `user`.
///
/// # Errors
///
/// [`Failure`]; in particular, an agent without file sessions, an unknown user, and `--socket`.
pub(super) async fn open(
    target: &Target,
    user: Option<&str>,
) -> Result<(SessionSender, SessionReceiver), Failure> {
    let Target::Vm(client, vm) = target else {
        return Err(Failure::Usage(
            "sftp needs minionsd, so it is unavailable with --socket: use `scp -O` or rsync",
        ));
    };
    let upgraded = client.open_file_session(&vm_path(vm, "/files/session"), user).await?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_CONTENT_LEN))
        .max_frame_size(Some(MAX_CONTENT_LEN));
    let stream = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
    let (sink, stream) = stream.split();
    Ok((SessionSender(sink), SessionReceiver(stream)))
}

impl SessionSender {
    /// Queues a request. Waits while the queue is full.
    pub(super) async fn queue(&mut self, message: &SessionMessage) -> Result<(), SftpError> {
        let sent = self.0.feed(WsMessage::Binary(message.content())).await;
        Ok(sent.map_err(LinkError::of_websocket)?)
    }

    /// Sends all queued requests.
    pub(super) async fn flush(&mut self) -> Result<(), SftpError> {
        Ok(self.0.flush().await.map_err(LinkError::of_websocket)?)
    }
}

impl SessionReceiver {
    /// Waits for the next message; `None` for a sign of life. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<SessionMessage>, SftpError> {
        let content: Bytes = match self.0.next().await {
            Some(Ok(WsMessage::Binary(content))) => content,
            Some(Ok(WsMessage::Close(frame))) => {
                return Err(LinkError::closed(frame.as_ref()).into());
            }
            // The library answers pings. minionsd sends no text.
            Some(Ok(
                WsMessage::Text(_) | WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_),
            )) => return Ok(None),
            Some(Err(error)) => return Err(LinkError::of_websocket(error).into()),
            None => return Err(LinkError::ended().into()),
        };
        if content.is_empty() {
            return Ok(None);
        }
        Ok(Some(SessionMessage::decode(content)?))
    }
}
