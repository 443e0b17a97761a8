//! Channel mode for a listener: reports connections to the host until one of them ends the listener.
//!
//! ```text
//!  host ── heartbeat, refuse, leave ─▶ hear
//!  host ◀─ connection, heartbeat ───── out ◀── OpenListener::next
//! ```
//!
//! The number of messages that wait for the host is bounded by the limit of waiting connections.

use super::SessionError;
use super::incoming::FrameReader;
use crate::error_chain;
use crate::forward::OpenListener;
use bytes::BytesMut;
use minions_proto::channel::{Channel, ChannelError, ChannelMessage};
use minions_proto::forward::{CloseReason, FORWARD_SILENCE, control, decode_control};
use minions_proto::forward_listener::{ListenerAgentControl, ListenerHostControl};
use minions_proto::frame::Decoder;
use minions_proto::message::HEARTBEAT;
use minions_proto::{AgentError, ErrorCode};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

/// Event of the host.
enum HostEvent {
    /// The host is alive.
    Heard,
    /// The host will not take this connection.
    Refused(u64),
    /// The host ends the listener, or violated the protocol.
    End(CloseReason, Option<ChannelError>),
}

/// Serves a listener until its last message was sent or the host's connection broke.
pub(super) async fn run(
    incoming: &mut FrameReader<'_>,
    mut listener: OpenListener,
) -> Result<(), SessionError> {
    let (mut read, mut write, decoder) = incoming.split();
    let mut out = BytesMut::new();
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_at = Instant::now() + FORWARD_SILENCE;
    let (reason, violation) = loop {
        tokio::select! {
            event = hear(&mut read, decoder) => {
                silent_at = Instant::now() + FORWARD_SILENCE;
                match event? {
                    HostEvent::Heard => {}
                    HostEvent::Refused(connection) => listener.refuse(connection),
                    HostEvent::End(reason, violation) => break (reason, violation),
                }
            }
            written = write.write_buf(&mut out), if !out.is_empty() => {
                if written? == 0 {
                    return Err(io::Error::from(io::ErrorKind::WriteZero).into());
                }
            }
            waiting = listener.next() => {
                control(&ListenerAgentControl::Connection(waiting)).encode(&mut out);
            }
            _ = heartbeat.tick(), if out.is_empty() => {
                control(&ListenerAgentControl::Heartbeat).encode(&mut out);
            }
            () = sleep_until(silent_at) => break (CloseReason::HostSilent, None),
        }
    };
    // Closes the socket, and removes its file, before the host learns of the end.
    listener.close().await;
    if let Some(error) = violation {
        let error = AgentError::new(ErrorCode::BadRequest, error_chain(&error));
        control(&ListenerAgentControl::Error(error)).encode(&mut out);
    }
    control(&ListenerAgentControl::Closed { reason }).encode(&mut out);
    super::write(&mut write, &out).await
}

/// Waits for the host's next message.
///
/// Cancel safe: bytes that have arrived stay in the decoder.
async fn hear<R: AsyncRead + Unpin>(
    read: &mut R,
    decoder: &mut Decoder,
) -> Result<HostEvent, SessionError> {
    loop {
        if let Some(payload) = decoder.next_frame()? {
            return Ok(event(ChannelMessage::decode(payload)));
        }
        if read.read_buf(decoder.read_buffer()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn event(message: Result<ChannelMessage, ChannelError>) -> HostEvent {
    let decoded = message.and_then(|message| match message.channel {
        Channel::Control => decode_control(&message),
        Channel::Stdin | Channel::Stdout | Channel::Stderr => {
            Err(ChannelError::Direction(message.channel))
        }
    });
    match decoded {
        Ok(ListenerHostControl::Heartbeat | ListenerHostControl::Unknown) => HostEvent::Heard,
        Ok(ListenerHostControl::Refuse { connection }) => HostEvent::Refused(connection),
        Ok(ListenerHostControl::Leave) => HostEvent::End(CloseReason::Left, None),
        Err(error) => HostEvent::End(CloseReason::Protocol, Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::ForwardDialer;
    use crate::forward::policy::ForwardPolicy;
    use minions_proto::forward_listener::{ListenerClient, ListenerEvent};
    use minions_proto::message::ForwardListen;
    use std::path::PathBuf;

    #[tokio::test(start_paused = true)]
    async fn a_silent_host_ends_the_listener_and_heartbeats_keep_it() {
        let dialer = ForwardDialer::new(ForwardPolicy::default(), PathBuf::from("/nonexistent"));
        let call = ForwardListen { address: "tcp:localhost:0".into(), owner: None };
        let listener = dialer.listen(&call).await.unwrap();
        let (host, agent) = tokio::io::duplex(64 * 1024);
        let started = Instant::now();
        let served = tokio::spawn(async move {
            let mut incoming = FrameReader::new(Box::new(agent));
            run(&mut incoming, listener).await.map_err(|error| error.to_string())
        });
        let (mut read, mut write) = tokio::io::split(host);
        let mut out = BytesMut::new();
        for _ in 0..12 {
            tokio::time::sleep(HEARTBEAT).await;
            ListenerClient::heartbeat().encode(&mut out);
            write.write_all_buf(&mut out).await.unwrap();
        }
        let mut bytes = Vec::new();
        // The writing half stays open: the host is silent, not gone.
        read.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(served.await.unwrap(), Ok(()));
        assert!(started.elapsed() >= 12 * HEARTBEAT + FORWARD_SILENCE);
        let mut decoder = Decoder::new();
        decoder.extend(&bytes);
        let mut client = ListenerClient::new(std::time::Instant::now());
        let mut last = None;
        while let Some(payload) = decoder.next_frame().unwrap() {
            let message = ChannelMessage::decode(payload).unwrap();
            last = Some(client.receive(&message, std::time::Instant::now()).unwrap());
        }
        assert_eq!(last, Some(ListenerEvent::Closed(CloseReason::HostSilent)));
    }
}
