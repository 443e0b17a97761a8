//! Messages of a file session, between a WebSocket and the agent.
//!
//! The pump holds one request, and the answers of one read from the agent. Answers are sent in the order of the requests,
//! so while the client does not read them, its further requests wait as well. A request that waits for room in the guest
//! does not delay answers.

use super::super::websocket_close::{FromClient, ToClient, is_too_long};
use crate::files::{FileError, FileStream, SessionStep};
use axum::extract::ws::{CloseCode, Message as Packet, close_code};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use minions_proto::file_session::{SessionDecoder, SessionFrameError, SessionMessage};
use minions_proto::message::HEARTBEAT;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Reason for the end of a session.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// The client closed the WebSocket, or its connection broke.
    ClientGone,
    /// The client violated the protocol.
    Breach(CloseCode, &'static str),
    /// The operation in the guest failed, or its connection was lost.
    Failed(FileError),
    /// The operation in the guest ended without a failure, although its input did not end.
    Ended,
    /// The agent sent a malformed frame.
    Malformed(SessionFrameError),
    /// The daemon stops.
    Restart,
}

impl SessionEnd {
    /// Returns the code and the reason of the Close frame.
    pub(super) fn close_frame(&self) -> (CloseCode, &'static str) {
        match self {
            Self::ClientGone => (close_code::NORMAL, ""),
            Self::Breach(code, reason) => (*code, *reason),
            Self::Failed(FileError::Exec(_)) => (close_code::ERROR, "connection_lost"),
            Self::Failed(FileError::Failed(_) | FileError::NoResult(_)) | Self::Ended => {
                (close_code::ERROR, "session_ended")
            }
            Self::Failed(FileError::Malformed(_)) | Self::Malformed(_) => {
                (close_code::ERROR, "agent_protocol_error")
            }
            Self::Restart => (close_code::RESTART, "shutting_down"),
        }
    }

    /// Returns the end as one word, for the audit log.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::ClientGone => "ok",
            Self::Breach(..) => "protocol",
            Self::Failed(_) => "failed",
            Self::Ended => "ended",
            Self::Malformed(_) => "agent_protocol_error",
            Self::Restart => "shutting_down",
        }
    }
}

/// Moves messages until the session ends.
pub(super) async fn pump(
    stream: &mut FileStream,
    from_client: &mut FromClient,
    to_client: &mut ToClient,
) -> SessionEnd {
    let mut answers = SessionDecoder::default();
    // The part of a request for which there was no room yet.
    let mut request = Bytes::new();
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let part = request.split_to(request.len().min(stream.room()));
        if !part.is_empty() {
            stream.push(part);
        }
        let wants_room = !request.is_empty();
        let sent = tokio::select! {
            packet = from_client.next(), if !wants_room => match request_of(packet) {
                Ok(frame) => {
                    request = frame;
                    continue;
                }
                Err(end) => return end,
            },
            step = stream.next_or_room(wants_room) => match step {
                Ok(SessionStep::Output(bytes)) => {
                    answers.extend(&bytes);
                    heartbeat.reset();
                    deliver(&mut answers, to_client).await
                }
                Ok(SessionStep::Room) => continue,
                Ok(SessionStep::Ended) => return SessionEnd::Ended,
                Err(error) => return SessionEnd::Failed(error),
            },
            _ = heartbeat.tick() => {
                let alive = to_client.send(Packet::Binary(Bytes::new())).await;
                alive.map_err(|_| SessionEnd::ClientGone)
            }
        };
        if let Err(end) = sent {
            return end;
        }
    }
}

/// Returns the frame of a client's message; empty if the message has none.
fn request_of(packet: Option<Result<Packet, axum::Error>>) -> Result<Bytes, SessionEnd> {
    let content = match packet {
        Some(Ok(Packet::Binary(content))) => content,
        Some(Ok(Packet::Ping(_) | Packet::Pong(_))) => return Ok(Bytes::new()),
        Some(Ok(Packet::Text(_))) => {
            return Err(SessionEnd::Breach(close_code::UNSUPPORTED, "messages must be binary"));
        }
        Some(Err(error)) if is_too_long(&error) => {
            return Err(SessionEnd::Breach(close_code::SIZE, "longer than 320 KiB"));
        }
        Some(Ok(Packet::Close(_)) | Err(_)) | None => return Err(SessionEnd::ClientGone),
    };
    if content.is_empty() {
        return Ok(content);
    }
    let message = SessionMessage::decode(content).map_err(|_| {
        SessionEnd::Breach(close_code::PROTOCOL, "a message must have a head of its length")
    })?;
    let mut frame = BytesMut::new();
    message.encode(&mut frame);
    Ok(frame.freeze())
}

/// Sends all complete answers to the client.
async fn deliver(answers: &mut SessionDecoder, to: &mut ToClient) -> Result<(), SessionEnd> {
    while let Some(answer) = answers.next_message().map_err(SessionEnd::Malformed)? {
        let packet = Packet::Binary(answer.content());
        to.feed(packet).await.map_err(|_| SessionEnd::ClientGone)?;
    }
    to.flush().await.map_err(|_| SessionEnd::ClientGone)
}
