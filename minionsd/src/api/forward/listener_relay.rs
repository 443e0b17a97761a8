//! Messages of a listener, between the agent's stream and the client's WebSocket.
//!
//! A client that does not read stops only the messages towards it: the agent then accepts no more connections, and
//! still receives heartbeats.

use crate::agent::stream::{StreamReader, StreamWriter};
use crate::agent::{AgentStream, StreamEnd};
use crate::api::audit::AuditNote;
use crate::api::websocket_close::{FromClient, ToClient, close_halves};
use axum::extract::ws::{CloseCode, Message as Packet, WebSocket, close_code};
use futures_util::{SinkExt, StreamExt};
use minions_api::forward::{ListenerCommand, ListenerMessage};
use minions_proto::forward::CloseReason;
use minions_proto::forward_listener::{ListenerClient, ListenerError, ListenerEvent};
use minions_proto::message::{ForwardListening, HEARTBEAT};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

/// Deadline for the agent to close the listener after `leave`.
const GOODBYE: Duration = Duration::from_secs(2);

/// Reason for the end of a listener.
#[derive(Debug)]
enum ListenerEnd {
    /// The agent closed the listener.
    Closed(CloseReason),
    /// The connection to the agent broke.
    Agent(StreamEnd),
    /// The agent violated the protocol.
    Protocol(ListenerError),
    /// The client is gone.
    ClientGone,
    /// The client violated the protocol.
    Breach(&'static str),
    /// The daemon stops.
    Draining,
}

impl ListenerEnd {
    /// Returns the end as one word, for the audit log.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Closed(CloseReason::Left) | Self::ClientGone => "left",
            Self::Closed(CloseReason::HostSilent) => "host_silent",
            Self::Closed(CloseReason::Reset) => "reset",
            Self::Closed(CloseReason::Ended | CloseReason::Protocol | CloseReason::Other) => {
                "closed"
            }
            Self::Agent(_) => "connection_lost",
            Self::Protocol(_) => "agent_protocol_error",
            Self::Breach(_) => "protocol",
            Self::Draining => "shutting_down",
        }
    }

    fn close_frame(&self) -> (CloseCode, &'static str) {
        match self {
            Self::Closed(_) | Self::ClientGone => (close_code::NORMAL, ""),
            Self::Agent(_) => (close_code::ERROR, "connection_lost"),
            Self::Protocol(_) => (close_code::ERROR, "agent_protocol_error"),
            Self::Breach(what) => (close_code::PROTOCOL, what),
            Self::Draining => (close_code::RESTART, "shutting_down"),
        }
    }
}

/// Relays messages until the listener ends, and closes it in the guest.
pub(super) async fn run(
    listening: ForwardListening,
    stream: AgentStream,
    socket: WebSocket,
    draining: CancellationToken,
    note: &AuditNote,
) {
    let AgentStream { mut reader, mut writer, .. } = stream;
    let (mut to_client, mut from_client) = socket.split();
    let end = tokio::select! {
        end = up(&mut from_client, &mut writer) => end,
        end = down(listening, &mut reader, &mut to_client) => end,
        () = draining.cancelled() => ListenerEnd::Draining,
    };
    note.outcome(|| end.as_str().to_owned());
    match &end {
        ListenerEnd::ClientGone | ListenerEnd::Breach(_) | ListenerEnd::Draining => {
            leave(&mut reader, &mut writer).await;
        }
        ListenerEnd::Closed(_) => {}
        ListenerEnd::Agent(error) => {
            tracing::debug!(%error, "a listener lost its connection to the agent");
        }
        ListenerEnd::Protocol(error) => {
            tracing::warn!(%error, "an agent violated the protocol of a listener");
        }
    }
    let (code, reason) = end.close_frame();
    close_halves(to_client, from_client, code, reason).await;
}

/// Asks the agent to close the listener, and waits until it has.
async fn leave(reader: &mut StreamReader, writer: &mut StreamWriter) {
    writer.queue(&ListenerClient::leave());
    let _ = timeout(GOODBYE, async {
        if writer.flush().await.is_ok() {
            while reader.next().await.is_ok() {}
        }
    })
    .await;
}

/// Moves the client's messages to the agent, with heartbeats.
async fn up(from: &mut FromClient, to: &mut StreamWriter) -> ListenerEnd {
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            packet = from.next() => match packet {
                Some(Ok(Packet::Text(text))) => match serde_json::from_str(&text) {
                    Ok(ListenerCommand::Refuse { connection }) => {
                        to.queue(&ListenerClient::refuse(connection));
                    }
                    Ok(ListenerCommand::Leave) => return ListenerEnd::ClientGone,
                    Err(_) => {
                        let what = "a message must be {\"type\":\"refuse\",…} or {\"type\":\"leave\"}";
                        return ListenerEnd::Breach(what);
                    }
                },
                Some(Ok(Packet::Binary(_))) => return ListenerEnd::Breach("messages must be text"),
                Some(Ok(Packet::Ping(_) | Packet::Pong(_))) => {}
                Some(Ok(Packet::Close(_)) | Err(_)) | None => return ListenerEnd::ClientGone,
            },
            _ = heartbeat.tick() => to.queue(&ListenerClient::heartbeat()),
        }
        if to.flush().await.is_err() {
            // The agent's last messages may still be in flight; the other direction receives the reason.
            return std::future::pending().await;
        }
    }
}

/// Moves the agent's messages to the client.
async fn down(
    listening: ForwardListening,
    from: &mut StreamReader,
    to: &mut ToClient,
) -> ListenerEnd {
    let ForwardListening { listener, address } = listening;
    if !send(to, &ListenerMessage::Listening { listener, address }).await {
        return ListenerEnd::ClientGone;
    }
    let mut client = ListenerClient::new(Instant::now().into_std());
    loop {
        let message = match from.next().await {
            Ok(message) => message,
            Err(broken) => return ListenerEnd::Agent(broken),
        };
        let event = match client.receive(&message, Instant::now().into_std()) {
            Ok(event) => event,
            Err(error) => return ListenerEnd::Protocol(error),
        };
        let (message, closed) = match event {
            ListenerEvent::Connection(waiting) => (ListenerMessage::Connection(waiting), None),
            ListenerEvent::Heartbeat => (ListenerMessage::Heartbeat, None),
            ListenerEvent::Failed(error) => {
                (ListenerMessage::Error { message: error.message }, None)
            }
            ListenerEvent::Closed(reason) => (ListenerMessage::Closed { reason }, Some(reason)),
        };
        let is_sent = send(to, &message).await;
        match closed {
            Some(reason) => return ListenerEnd::Closed(reason),
            None if is_sent => {}
            None => return ListenerEnd::ClientGone,
        }
    }
}

/// Sends a message. Returns false if the client is gone.
async fn send(to: &mut ToClient, message: &ListenerMessage) -> bool {
    match serde_json::to_string(message) {
        Ok(text) => to.send(Packet::Text(text.into())).await.is_ok(),
        // All values are texts and numbers.
        Err(_) => false,
    }
}
