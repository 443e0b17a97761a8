//! One connection: requests are answered in order, one reply each.
//!
//! ```text
//!           first byte of a frame          whole frame            reply ready
//!   idle ───────────────────────▶ reading ────────────▶ answering ───────────▶ writing ─┐
//!    ▲   for ever                   ≤ 30 s               as the request says    ≤ 30 s  │
//!    └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A request that opens a stream is the connection's last: from its reply on it is in channel mode
//! ([`stream`]).
//!
//! A frame that is no request gets an error reply and the connection lives. Only three things end
//! it: the host closes, a deadline passes, or a length over the cap makes the stream unreadable.

mod incoming;
mod stream;

use crate::agent::Agent;
use crate::ops::{self, Answer};
use incoming::{Frame, Incoming};
use minions_proto::channel::ChannelError;
use minions_proto::frame::FrameError;
use minions_proto::{AgentError, ErrorCode};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// For a whole reply to be taken: a host that doesn't read holds a connection and its memory.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// For a host over the limit to send the request that gets the `busy` reply, and for bytes behind
/// an over-long frame to be read away.
const PARTING_DEADLINE: Duration = Duration::from_secs(1);

/// Hosts over the limit that are told so; more than that are just closed.
static TURNED_AWAY: Semaphore = Semaphore::const_new(32);

/// Why a connection ended, other than by the host's close between two frames.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("host closed in the middle of a frame")]
    Truncated,
    #[error("host closed while its request ran")]
    Abandoned,
    #[error("frame didn't arrive within 30 s of its first byte")]
    SlowFrame,
    #[error("reply wasn't taken within 30 s")]
    SlowReader,
    #[error("channel mode was broken")]
    Channel(#[from] ChannelError),
    #[error("frame out of bounds")]
    Frame(#[from] FrameError),
    #[error("stream broke")]
    Io(#[from] io::Error),
}

/// Serves `stream` until it ends.
pub(crate) async fn run<S>(agent: &Agent, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut incoming = Incoming::new(stream);
    match converse(agent, &mut incoming).await {
        Ok(()) => tracing::debug!("connection closed"),
        Err(error) => tracing::debug!(error = ops::chain(&error), "connection ended"),
    }
}

async fn converse<S>(agent: &Agent, incoming: &mut Incoming<S>) -> Result<(), SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    loop {
        let reply = match incoming.next().await? {
            Frame::End => return Ok(()),
            Frame::Payload(payload) => match incoming.attend(ops::answer(agent, &payload)).await? {
                Answer::Reply(reply) => reply,
                Answer::ReplyThen(reply, then) => {
                    let written = write(incoming.stream(), &reply).await;
                    // A task of its own: it goes on when this connection ends.
                    tokio::spawn(then);
                    written?;
                    continue;
                }
                Answer::Stream(reply, tail) => {
                    write(incoming.stream(), &reply).await?;
                    let stream = stream::run(incoming, tail).await;
                    part(incoming.stream()).await;
                    return stream;
                }
            },
            Frame::Malformed(FrameError::Empty) => {
                refusal(ErrorCode::BadRequest, FrameError::Empty)
            }
            Frame::Malformed(error @ FrameError::TooLong { .. }) => {
                write(incoming.stream(), &refusal(ErrorCode::FrameTooLarge, error)).await?;
                part(incoming.stream()).await;
                return Ok(());
            }
        };
        write(incoming.stream(), &reply).await?;
    }
}

fn refusal(code: ErrorCode, error: FrameError) -> Vec<u8> {
    ops::refuse(AgentError::new(code, error.to_string()))
}

/// Answers the first request with `busy` and closes. The reply waits for the request: a byte that
/// nobody asked for would only look like a broken agent.
pub(crate) async fn turn_away<S>(stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Ok(_slot) = TURNED_AWAY.try_acquire() else { return };
    let mut incoming = Incoming::new(stream);
    if let Ok(Ok(Frame::Payload(_))) = timeout(PARTING_DEADLINE, incoming.next()).await {
        let busy = AgentError::new(ErrorCode::Busy, "too many connections; try again later");
        if write(incoming.stream(), &ops::refuse(busy)).await.is_ok() {
            part(incoming.stream()).await;
        }
    }
}

/// One reply, in one write unless the kernel splits it.
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

/// Closes so that the last reply arrives: closing a socket with unread bytes in it resets it, and
/// a reset may overtake the reply.
async fn part<S>(stream: &mut S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let read_away = async {
        stream.shutdown().await?;
        let mut sink = [0; 4096];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Late or broken: it ends here either way.
    let _ = timeout(PARTING_DEADLINE, read_away).await;
}
