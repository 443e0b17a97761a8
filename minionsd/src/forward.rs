//! Forwarded connections: bytes between a client of the daemon and a target in a guest.
//!
//! ```text
//!  client ──▶ ClientReader ──▶ AgentStream ══▶ agent ──▶ target
//!         ◀── ClientWriter ◀──             ◀══       ◀──
//! ```
//!
//! The directions are independent, and each ends separately (half-close). The daemon holds at most one message in each
//! direction. A side that does not read stops only the direction towards it.

use crate::agent::stream::{StreamReader, StreamWriter};
use crate::agent::{AgentStream, StreamEnd};
use bytes::Bytes;
use minions_proto::channel::{CHUNK_LEN, Channel, ChannelMessage};
use minions_proto::forward::CloseReason;
use minions_proto::forward_client::{ForwardClient, ForwardError, ForwardEvent};
use minions_proto::message::HEARTBEAT;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Time after the end of both directions in which the agent must send its last message. It is checked at each heartbeat.
const LAST_MESSAGE: Duration = Duration::from_secs(10);

/// Deadline for the agent to close the target's connection after `leave`.
const GOODBYE: Duration = Duration::from_secs(2);

/// Input from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ForwardInput {
    /// Bytes for the target.
    Data(Bytes),
    /// The client sends no more bytes.
    End,
    /// The client's connection is gone: both directions end at once.
    Gone,
    /// The client violated the protocol.
    Breach(&'static str),
}

/// Source of the client's bytes.
pub(crate) trait ClientReader: Send {
    /// Waits for the next input. After [`ForwardInput::End`], only [`ForwardInput::Gone`] or
    /// [`ForwardInput::Breach`] follow.
    ///
    /// Cancel safe.
    fn next(&mut self) -> impl Future<Output = ForwardInput> + Send;
}

/// Destination of the target's bytes.
pub(crate) trait ClientWriter: Send {
    /// Sends bytes from the target. Returns false if the client is gone.
    fn data(&mut self, bytes: Bytes) -> impl Future<Output = bool> + Send;

    /// Tells the client that the target sends no more bytes. Returns false if the client is gone.
    fn end(&mut self) -> impl Future<Output = bool> + Send;
}

/// Reason for the end of a forward.
#[derive(Debug)]
pub(crate) enum ForwardEnd {
    /// The agent closed the target's connection.
    Closed(CloseReason),
    /// The connection to the agent broke.
    Agent(StreamEnd),
    /// The agent violated the protocol.
    Protocol(ForwardError),
    /// The client is gone.
    ClientGone,
    /// The client violated the protocol.
    Breach(&'static str),
}

impl ForwardEnd {
    /// Returns the end as one word, for the audit log.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Closed(CloseReason::Ended) => "ended",
            Self::Closed(CloseReason::Reset) => "reset",
            Self::Closed(CloseReason::Left) | Self::ClientGone => "left",
            Self::Closed(CloseReason::HostSilent) => "host_silent",
            Self::Closed(CloseReason::Protocol | CloseReason::Other) => "closed",
            Self::Agent(_) => "connection_lost",
            Self::Protocol(_) => "agent_protocol_error",
            Self::Breach(_) => "protocol",
        }
    }
}

/// Moves bytes both ways until the forward ends. If the client ends it, tells the agent to close the target's
/// connection.
///
/// Dropping the future closes the connection to the agent, which then closes the target's.
pub(crate) async fn pump(
    stream: AgentStream,
    from_client: &mut impl ClientReader,
    to_client: &mut impl ClientWriter,
) -> ForwardEnd {
    let AgentStream { mut reader, mut writer, .. } = stream;
    let client_ended = AtomicBool::new(false);
    let end = tokio::select! {
        end = up(from_client, &mut writer, &client_ended) => end,
        end = down(&mut reader, to_client, &client_ended) => end,
    };
    match &end {
        ForwardEnd::ClientGone | ForwardEnd::Breach(_) => {
            writer.queue(&ForwardClient::leave());
            let _ = timeout(GOODBYE, async {
                if writer.flush().await.is_ok() {
                    while reader.next().await.is_ok() {}
                }
            })
            .await;
        }
        ForwardEnd::Closed(_) => {}
        ForwardEnd::Agent(error) => {
            tracing::debug!(%error, "a forward lost its connection to the agent")
        }
        ForwardEnd::Protocol(error) => {
            tracing::warn!(%error, "an agent violated the protocol of a forward")
        }
    }
    end
}

/// Moves the client's bytes to the agent, with heartbeats.
async fn up(
    from: &mut impl ClientReader,
    to: &mut StreamWriter,
    client_ended: &AtomicBool,
) -> ForwardEnd {
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            input = from.next() => match input {
                ForwardInput::Data(mut bytes) => {
                    while !bytes.is_empty() {
                        let payload = bytes.split_to(bytes.len().min(CHUNK_LEN));
                        to.queue(&ChannelMessage { channel: Channel::Stdin, payload });
                    }
                }
                ForwardInput::End => {
                    client_ended.store(true, Ordering::SeqCst);
                    to.queue(&ChannelMessage { channel: Channel::Stdin, payload: Bytes::new() });
                }
                ForwardInput::Gone => return ForwardEnd::ClientGone,
                ForwardInput::Breach(what) => return ForwardEnd::Breach(what),
            },
            _ = heartbeat.tick() => to.queue(&ForwardClient::heartbeat()),
        }
        if to.flush().await.is_err() {
            // The agent's last messages may still be in flight; the other direction receives the reason.
            return std::future::pending().await;
        }
    }
}

/// Moves the target's bytes to the client.
async fn down(
    from: &mut StreamReader,
    to: &mut impl ClientWriter,
    client_ended: &AtomicBool,
) -> ForwardEnd {
    let mut forward = ForwardClient::new(Instant::now().into_std());
    // Time since which both directions have ended, and only the agent's last message is missing.
    let mut both_ended = None;
    loop {
        if both_ended.is_none() && forward.target_has_ended() && client_ended.load(Ordering::SeqCst)
        {
            both_ended = Some(Instant::now());
        }
        if both_ended.is_some_and(|since: Instant| since.elapsed() > LAST_MESSAGE) {
            return ForwardEnd::Agent(StreamEnd::Silent);
        }
        let message = match from.next().await {
            Ok(message) => message,
            Err(broken) => return ForwardEnd::Agent(broken),
        };
        let taken = match forward.receive(message, Instant::now().into_std()) {
            Ok(ForwardEvent::Data(bytes)) => to.data(bytes).await,
            Ok(ForwardEvent::TargetEnded) => to.end().await,
            Ok(ForwardEvent::Failed(error)) => {
                tracing::debug!(error = %error.message, "the target's connection failed");
                true
            }
            Ok(ForwardEvent::Closed(reason)) => return ForwardEnd::Closed(reason),
            Ok(ForwardEvent::Heartbeat) => true,
            Err(error) => return ForwardEnd::Protocol(error),
        };
        if !taken {
            return ForwardEnd::ClientGone;
        }
    }
}
