//! Session of one connection: requests are answered in order, with one reply each.
//!
//! ```text
//!           first byte of a frame          whole frame            reply ready
//!   idle ───────────────────────▶ reading ────────────▶ answering ───────────▶ writing ─┐
//!    ▲   no limit                   ≤ 30 s               limit of the request   ≤ 30 s  │
//!    └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! After the reply to a request that opens a stream, the connection is in channel mode ([`stream`], [`forward`],
//! [`listener`]). The stream of an exec ends with a control message, after which the connection takes requests again. A
//! forward or a listener is the connection's last request.
//!
//! A frame that is not a valid request gets an error reply, and the connection stays open. It ends only when the host
//! closes it, when a deadline passes, or when a length above the limit makes the stream unreadable.

mod forward;
mod incoming;
mod listener;
mod stream;

use crate::agent::Agent;
use crate::error_chain;
use crate::host_stream::BoxedStream;
use crate::ops::{self, RequestAnswer};
use bytes::Bytes;
use incoming::{FrameReader, ReceivedFrame};
use minions_proto::channel::{ChannelError, ChannelMessage, HostControl};
use minions_proto::frame::FrameError;
use minions_proto::{AgentError, ErrorCode};
use std::io;
use std::time::Duration;
use stream::AfterStream;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

/// Deadline for writing a whole reply: a host that does not read occupies a connection and its memory.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Time after the last message of a stream in which the next request must begin. A host that does not know that the
/// connection takes requests again waits for its end.
const REUSE_WITHIN: Duration = Duration::from_secs(3);

/// Deadline for a host over the limit of connections to send the request that gets the `busy` reply, and for
/// discarding unread bytes before a close.
const PARTING_DEADLINE: Duration = Duration::from_secs(1);

/// Limit of connections that are refused with a reply at the same time; any more are closed without one.
static TURNED_AWAY: Semaphore = Semaphore::const_new(32);

/// Reason why a connection ended, other than a close by the host between two frames.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("host closed in the middle of a frame")]
    Truncated,
    #[error("host closed while its request was running")]
    Abandoned,
    #[error("frame did not arrive within 30 s of its first byte")]
    SlowFrame,
    #[error("host did not read the reply within 30 s")]
    SlowReader,
    #[error("protocol error in channel mode")]
    Channel(#[from] ChannelError),
    #[error("frame length out of bounds")]
    Frame(#[from] FrameError),
    #[error("connection failed")]
    Io(#[from] io::Error),
}

/// Serves `stream` until it ends.
pub(crate) async fn run(agent: &Agent, stream: BoxedStream<'_>, slot: SemaphorePermit<'_>) {
    let mut incoming = FrameReader::new(stream);
    match converse(agent, &mut incoming, slot).await {
        Ok(()) => tracing::debug!("connection closed"),
        Err(error) => tracing::debug!(error = error_chain(&error), "connection ended"),
    }
}

async fn converse(
    agent: &Agent,
    incoming: &mut FrameReader<'_>,
    slot: SemaphorePermit<'_>,
) -> Result<(), SessionError> {
    // After a stream: the time at which the next request must have begun.
    let mut reuse_until = None;
    loop {
        if let Some(until) = reuse_until {
            let Ok(begun) = timeout_at(until, incoming.begun()).await else {
                part(incoming.stream()).await;
                return Ok(());
            };
            begun?;
        }
        let reply = match incoming.next().await? {
            ReceivedFrame::End => return Ok(()),
            // The host sent it before it had the stream's last message.
            ReceivedFrame::Payload(payload) if reuse_until.is_some() && is_of_stream(&payload) => {
                if is_leave(payload) {
                    // This host waits for the end of the connection.
                    part(incoming.stream()).await;
                    return Ok(());
                }
                continue;
            }
            ReceivedFrame::Payload(payload) => {
                reuse_until = None;
                match incoming.attend(ops::answer(agent, &payload)).await? {
                    RequestAnswer::Reply(reply) => reply,
                    RequestAnswer::ReplyThen(reply, then) => {
                        let written = write(incoming.stream(), &reply).await;
                        // Spawned, so that it continues if this connection ends.
                        tokio::spawn(then);
                        written?;
                        continue;
                    }
                    RequestAnswer::Forward(reply, forward) => {
                        // Forwards have a limit of their own, and must not use up the connections of requests.
                        drop(slot);
                        if let Err(error) = write(incoming.stream(), &reply).await {
                            forward.abort();
                            return Err(error);
                        }
                        let stream = forward::run(incoming, forward).await;
                        part(incoming.stream()).await;
                        return stream;
                    }
                    RequestAnswer::Listener(reply, listener) => {
                        drop(slot);
                        write(incoming.stream(), &reply).await?;
                        let stream = listener::run(incoming, *listener).await;
                        part(incoming.stream()).await;
                        return stream;
                    }
                    RequestAnswer::Stream(reply, tail) => {
                        write(incoming.stream(), &reply).await?;
                        let stream = stream::run(incoming, tail).await;
                        if let Ok(AfterStream::Requests) = stream {
                            reuse_until = Some(Instant::now() + REUSE_WITHIN);
                            continue;
                        }
                        part(incoming.stream()).await;
                        return stream.map(|_| ());
                    }
                }
            }
            ReceivedFrame::Malformed(FrameError::Empty) => {
                refusal(ErrorCode::BadRequest, FrameError::Empty)
            }
            ReceivedFrame::Malformed(error @ FrameError::TooLong { .. }) => {
                write(incoming.stream(), &refusal(ErrorCode::FrameTooLarge, error)).await?;
                part(incoming.stream()).await;
                return Ok(());
            }
        };
        write(incoming.stream(), &reply).await?;
    }
}

/// Reports whether a frame is a message of channel mode: its first byte is the number of a channel, which no request
/// begins with.
fn is_of_stream(payload: &Bytes) -> bool {
    ChannelMessage::decode(payload.clone()).is_ok()
}

fn is_leave(payload: Bytes) -> bool {
    let message = ChannelMessage::decode(payload);
    message.is_ok_and(|message| matches!(message.host_control(), Ok(HostControl::Leave)))
}

fn refusal(code: ErrorCode, error: FrameError) -> Vec<u8> {
    ops::refuse(AgentError::new(code, error.to_string()))
}

/// Answers the first request with `busy`, and closes. It waits for the request, because an unrequested reply would
/// be a protocol error.
pub(crate) async fn turn_away(stream: BoxedStream<'_>) {
    let Ok(_slot) = TURNED_AWAY.try_acquire() else { return };
    let mut incoming = FrameReader::new(stream);
    if let Ok(Ok(ReceivedFrame::Payload(_))) = timeout(PARTING_DEADLINE, incoming.next()).await {
        let busy = AgentError::new(ErrorCode::Busy, "too many connections; try again later");
        if write(incoming.stream(), &ops::refuse(busy)).await.is_ok() {
            part(incoming.stream()).await;
        }
    }
}

/// Writes a reply, in one write unless the kernel splits it.
async fn write<S>(stream: &mut S, reply: &[u8]) -> Result<(), SessionError>
where
    S: AsyncWrite + Unpin,
{
    let written = async {
        stream.write_all(reply).await?;
        stream.flush().await
    };
    timeout(WRITE_DEADLINE, written)
        .await
        .map_err(|_| SessionError::SlowReader)?
        .map_err(Into::into)
}

/// Closes the connection so that the last reply arrives: closing a socket with unread bytes resets the
/// connection, and a reset may overtake the reply.
async fn part(stream: &mut BoxedStream<'_>) {
    let read_away = async {
        stream.shutdown().await?;
        let mut sink = [0; 4096];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // The connection ends here, even after a timeout or an error.
    let _ = timeout(PARTING_DEADLINE, read_away).await;
}
