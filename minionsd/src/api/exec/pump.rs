//! Forwards channel messages between a WebSocket and an agent.
//!
//! The pump holds one message in each direction. It inspects control messages to recognize the last one, to coalesce
//! heartbeats, to end a stream of empty messages, and to acknowledge output for clients that do not. The directions are
//! independent: a client that does not read can still send input, and an agent that does not read can still send
//! output.

use super::super::audit::AuditNote;
use super::super::websocket_close::{
    FAREWELL, FromClient, ToClient, close, close_halves, is_too_long,
};
use super::convert;
use crate::agent::StreamEnd;
use crate::agent::stream::{StreamReader, StreamWriter};
use crate::exec::acks::OutputAcks;
use crate::exec::heartbeat::HeartbeatFilter;
use crate::exec::lease::{close_after_leave, leave};
use crate::exec::{DriverEvent, ExecDriver, PlainExec};
use axum::extract::ws::{CloseCode, Message as Packet, WebSocket, close_code};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use minions_proto::ErrorCode as AgentCode;
use minions_proto::channel::{AgentControl, Channel, ChannelMessage, Ended, HostControl};
use minions_proto::empty_messages::EmptyMessageLimit;
use minions_proto::exec_client::{StreamError, check_offset};
use minions_proto::frame::MAX_FRAME_LEN;
use minions_proto::message::ExecAttached;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Reason for the end of a session.
enum SessionEnd {
    /// The agent sent its last message.
    Exit,
    /// Another client has the program now.
    TakenOver,
    /// The agent's connection broke.
    Agent(StreamEnd),
    /// The client closed the WebSocket.
    Goodbye,
    /// The client's connection broke.
    Vanished,
    /// The client violated the protocol.
    Breach(CloseCode, &'static str),
    /// The daemon stops.
    Restart,
}

/// Forwards messages until either side ends. If the client closed the WebSocket, `leave` is sent to the agent. If the
/// client's connection broke or the daemon stops, the client may re-attach.
pub(super) async fn pump(
    socket: WebSocket,
    driver: ExecDriver,
    note: &AuditNote,
    draining: &CancellationToken,
) {
    let Some((attached, mut stream)) = driver.into_stream() else {
        return close(socket, close_code::ERROR, "connection_lost").await;
    };
    let (mut to_client, mut from_client) = socket.split();
    let mut checked = CheckedMessages::of(&attached);
    // The client has sent `leave`; the agent's close is then the answer to it.
    let left = AtomicBool::new(false);
    let acks = OutputAcks::of(&attached);
    let end = tokio::select! {
        end = up(&mut from_client, &mut stream.writer, &left, &acks) => end,
        end = down(&mut stream.reader, &mut to_client, &mut checked, &acks, note) => end,
        () = draining.cancelled() => SessionEnd::Restart,
    };
    let left = left.into_inner();
    // Nothing follows the last message, so there is nothing to wait for.
    let has_ended = matches!(end, SessionEnd::Exit | SessionEnd::TakenOver);
    let (code, reason) = match end {
        SessionEnd::Exit => (close_code::NORMAL, ""),
        SessionEnd::TakenOver => (close_code::POLICY, "taken_over"),
        SessionEnd::Agent(_) if left => (close_code::NORMAL, ""),
        SessionEnd::Agent(broken) if broken.is_breach() => {
            (close_code::ERROR, "agent_protocol_error")
        }
        SessionEnd::Agent(_) => (close_code::ERROR, "connection_lost"),
        SessionEnd::Breach(code, reason) => (code, reason),
        SessionEnd::Restart => (close_code::RESTART, "shutting_down"),
        SessionEnd::Goodbye => {
            let leaving =
                async { if left { close_after_leave(stream).await } else { leave(stream).await } };
            // Sends the answer to the client's Close.
            let answered = timeout(FAREWELL, to_client.close());
            let _ = tokio::join!(leaving, answered);
            return;
        }
        SessionEnd::Vanished if left => return close_after_leave(stream).await,
        SessionEnd::Vanished => return,
    };
    if left && !has_ended {
        close_after_leave(stream).await;
    } else {
        drop(stream);
    }
    close_halves(to_client, from_client, code, reason).await;
}

/// Forwards messages from the client to the agent.
async fn up(
    from: &mut FromClient,
    to: &mut StreamWriter,
    left: &AtomicBool,
    acks: &OutputAcks,
) -> SessionEnd {
    loop {
        let packet = tokio::select! {
            packet = from.next() => packet,
            ack = acks.due() => {
                to.queue(&ChannelMessage::host(&ack));
                // If the agent is gone, the other direction gets the reason.
                let _ = to.flush().await;
                continue;
            }
        };
        let bytes = match packet {
            Some(Ok(Packet::Binary(bytes))) => bytes,
            Some(Ok(Packet::Ping(_) | Packet::Pong(_))) => continue,
            Some(Ok(Packet::Text(_))) => {
                return SessionEnd::Breach(close_code::UNSUPPORTED, "messages must be binary");
            }
            Some(Ok(Packet::Close(_))) => return SessionEnd::Goodbye,
            Some(Err(error)) if is_too_long(&error) => return TOO_LONG,
            Some(Err(_)) | None => return SessionEnd::Vanished,
        };
        if bytes.len() > MAX_FRAME_LEN {
            return TOO_LONG;
        }
        let message = match ChannelMessage::decode(bytes) {
            Ok(message) if matches!(message.channel, Channel::Stdin | Channel::Control) => message,
            _ => {
                return SessionEnd::Breach(
                    close_code::PROTOCOL,
                    "no such channel towards the program",
                );
            }
        };
        if message.channel == Channel::Control {
            match message.host_control() {
                Ok(HostControl::Leave) => left.store(true, Ordering::SeqCst),
                Ok(HostControl::Ack { .. }) => acks.leave_to_client(),
                _ => {}
            }
        }
        to.queue(&message);
        if to.flush().await.is_err() {
            // The other direction may still forward the agent's last messages, and would be cancelled if this one
            // returned now.
            while let Some(Ok(packet)) = from.next().await {
                if matches!(packet, Packet::Close(_)) {
                    return SessionEnd::Goodbye;
                }
            }
            return SessionEnd::Vanished;
        }
    }
}

const TOO_LONG: SessionEnd = SessionEnd::Breach(close_code::SIZE, "longer than 1 MiB");

/// Forwards messages from the agent to the client.
async fn down(
    from: &mut StreamReader,
    to: &mut ToClient,
    checked: &mut CheckedMessages,
    acks: &OutputAcks,
    note: &AuditNote,
) -> SessionEnd {
    loop {
        let next = from.next_packet().await;
        let next = next.and_then(|(packet, message)| {
            let passage = checked.check(&message, note)?;
            Ok((packet, message, passage))
        });
        let (packet, message, last) = match next {
            Ok((packet, message, MessageFate::More)) => (packet, message, None),
            Ok((packet, message, MessageFate::Last(end))) => (packet, message, Some(end)),
            Ok((_, _, MessageFate::Coalesced)) => continue,
            Err(broken) => return SessionEnd::Agent(broken),
        };
        let packet =
            if last.is_some() { with_exit_code(&message).unwrap_or(packet) } else { packet };
        if to.send(Packet::Binary(packet)).await.is_err() {
            // The other direction reads a Close that the client may have sent before, and ends the session first.
            tokio::time::sleep(FAREWELL).await;
            return SessionEnd::Vanished;
        }
        acks.passed_on(&message);
        if let Some(end) = last {
            return end;
        }
    }
}

/// Returns the agent's last message with an added `exit_code`, as in the other forms: the exit status, 128+n after
/// signal n, 124 at the time limit. Returns `None` if the message is not an exit.
fn with_exit_code(message: &ChannelMessage) -> Option<Bytes> {
    let Ok(AgentControl::Exit(ended)) = message.agent_control() else { return None };
    let mut control: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
    control.as_object_mut()?.insert("exit_code".into(), ended.outcome.exit_code().into());
    let payload = serde_json::to_vec(&control).ok()?.into();
    Some(ChannelMessage { channel: Channel::Control, payload }.to_bytes())
}

/// Decision about a message from the agent.
enum MessageFate {
    /// Forward the message.
    More,
    /// Forward the message and end the session.
    Last(SessionEnd),
    /// Drop the message: a heartbeat shortly after another one.
    Coalesced,
}

/// Checks of the agent's messages before they are forwarded to the client.
struct CheckedMessages {
    limit: EmptyMessageLimit,
    heartbeats: HeartbeatFilter,
}

impl CheckedMessages {
    fn of(attached: &ExecAttached) -> Self {
        let limit = EmptyMessageLimit::new(attached.stdin_acked, Instant::now().into_std());
        Self { limit, heartbeats: HeartbeatFilter::default() }
    }

    fn check(
        &mut self,
        message: &ChannelMessage,
        note: &AuditNote,
    ) -> Result<MessageFate, StreamError> {
        let now = Instant::now().into_std();
        if message.channel != Channel::Control {
            self.limit.count_output(message.payload.len(), now)?;
            return Ok(MessageFate::More);
        }
        let Ok(control) = message.agent_control() else {
            // The client may support a control message that this daemon does not know.
            self.limit.count_empty(now)?;
            return Ok(MessageFate::More);
        };
        self.limit.count_control(&control, now)?;
        Ok(match control {
            AgentControl::Gap { to, .. } => {
                check_offset("lost output", to)?;
                MessageFate::More
            }
            AgentControl::Heartbeat if !self.heartbeats.pass() => MessageFate::Coalesced,
            AgentControl::Exit(ended) => {
                noted(note, &ended);
                MessageFate::Last(SessionEnd::Exit)
            }
            AgentControl::Error(error) if error.code == Some(AgentCode::TakenOver) => {
                note.outcome(|| "taken_over".into());
                MessageFate::Last(SessionEnd::TakenOver)
            }
            _ => MessageFate::More,
        })
    }
}

fn noted(note: &AuditNote, ended: &Ended) {
    note.outcome(|| convert::in_words(&ended.outcome));
}

/// Serves a client whose program runs on a plain agent: one without the feature `exec2`, which has no streams. All
/// messages of the client except Close are ignored.
pub(super) async fn tell(
    socket: WebSocket,
    mut plain: PlainExec,
    note: &AuditNote,
    draining: &CancellationToken,
) {
    let (mut to_client, mut from_client) = socket.split();
    let forward = async {
        loop {
            let (message, over) = match plain.next().await {
                Ok(DriverEvent::Output(stream, _, payload)) => {
                    (ChannelMessage { channel: stream.channel(), payload }, false)
                }
                Ok(DriverEvent::Ended(ended)) => {
                    noted(note, &ended);
                    (ChannelMessage::agent(&AgentControl::Exit(ended)), true)
                }
                Ok(_) => (ChannelMessage::agent(&AgentControl::Heartbeat), false),
                Err(_) => return SessionEnd::Agent(StreamEnd::Closed),
            };
            if to_client.send(Packet::Binary(message.to_bytes())).await.is_err() {
                return SessionEnd::Vanished;
            }
            if over {
                return SessionEnd::Exit;
            }
        }
    };
    let end = tokio::select! {
        end = forward => end,
        end = until_gone(&mut from_client) => end,
        () = draining.cancelled() => SessionEnd::Restart,
    };
    let (code, reason) = match end {
        SessionEnd::Exit => (close_code::NORMAL, ""),
        SessionEnd::Restart => (close_code::RESTART, "shutting_down"),
        SessionEnd::Breach(code, reason) => (code, reason),
        SessionEnd::Agent(_) | SessionEnd::TakenOver => (close_code::ERROR, "connection_lost"),
        SessionEnd::Goodbye | SessionEnd::Vanished => {
            let _ = timeout(FAREWELL, to_client.close()).await;
            return;
        }
    };
    close_halves(to_client, from_client, code, reason).await;
}

async fn until_gone(from: &mut FromClient) -> SessionEnd {
    loop {
        match from.next().await {
            Some(Ok(Packet::Close(_))) => return SessionEnd::Goodbye,
            Some(Ok(_)) => {}
            Some(Err(error)) if is_too_long(&error) => return TOO_LONG,
            Some(Err(_)) | None => return SessionEnd::Vanished,
        }
    }
}
