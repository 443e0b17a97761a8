//! Connection in channel mode: messages in both directions, independent of each other.

use super::pace::{NextStep, StreamPace};
use super::pooled::{IdleConnection, PooledConnections};
use super::socket::AgentSocket;
use crate::budget::{BudgetShare, FREE};
use bytes::{Buf, Bytes, BytesMut};
use minions_proto::channel::{ChannelError, ChannelMessage};
use minions_proto::connection::Connection;
use minions_proto::exec_client::StreamError;
use minions_proto::frame::{Decoder, FrameError};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Time without a complete message after which the agent counts as gone: four of its heartbeat intervals.
const SILENCE: Duration = Duration::from_secs(20);

/// Stream to an exec. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct AgentStream {
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
    /// Permit for the number of streams.
    permit: OwnedSemaphorePermit,
    descriptor: OwnedSemaphorePermit,
    /// Pool for the connection, if the agent takes requests on it after the stream.
    pool: Option<Arc<PooledConnections>>,
}

/// Reason why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamEnd {
    /// The agent closed the stream between two messages.
    #[error("the agent closed the stream")]
    Closed,
    /// The connection was closed within a message, or failed with an error.
    #[error("the connection to the agent broke")]
    Lost(#[source] io::Error),
    /// Neither a message nor a heartbeat arrived in time.
    #[error("the agent sent neither a message nor a heartbeat in time")]
    Silent,
    /// Another agent has replaced the one at the other end, or its VM is gone.
    #[error("the agent was replaced")]
    Replaced,
    /// The daemon has no memory left for a message of this length.
    #[error("no memory for a message of the agent")]
    NoRoom,
    /// The agent sent an invalid frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The agent sent a frame that is not a channel message.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The agent sent a message that is not allowed on a stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl StreamEnd {
    /// Reports whether the agent violated the protocol, so that re-attaching makes no sense.
    pub(crate) fn is_breach(&self) -> bool {
        match self {
            Self::Closed | Self::Lost(_) | Self::Silent | Self::Replaced | Self::NoRoom => false,
            Self::Frame(_) | Self::Channel(_) | Self::Stream(_) => true,
        }
    }
}

impl AgentStream {
    /// Creates a stream from a connection whose last reply opened it. `epoch` is cancelled when the agent is
    /// replaced. `pace` is the processing rate of the VM.
    pub(super) fn new(
        (socket, mut decoder): (AgentSocket, Decoder),
        epoch: CancellationToken,
        permit: OwnedSemaphorePermit,
        pace: Arc<StreamPace>,
        pool: Option<Arc<PooledConnections>>,
    ) -> Self {
        decoder.expect_alike();
        let (stream, share, descriptor) = socket.into_parts();
        let (read, write) = stream.into_split();
        Self {
            reader: StreamReader {
                stream: read,
                decoder,
                share,
                waiting_since: None,
                epoch,
                pace,
                turn: NextStep::Continue,
            },
            writer: StreamWriter { stream: write, buffer: BytesMut::new() },
            permit,
            descriptor,
            pool,
        }
    }

    /// Returns the connection to the pool, after the last message. Without effect on a stream whose agent closes it, or on
    /// which messages of the host or of the agent are incomplete.
    pub(crate) fn give_back(self) {
        let Self { reader, writer, permit, descriptor, pool } = self;
        let Some(pool) = pool else { return };
        let StreamReader { stream, decoder, mut share, epoch, .. } = reader;
        if !decoder.is_empty() || writer.pending() > 0 {
            return;
        }
        let Ok(stream) = stream.reunite(writer.stream) else { return };
        share.release();
        let connection = Connection::new(AgentSocket::new(stream, share, descriptor));
        let since = Instant::now();
        pool.give_back(IdleConnection { connection, since, after_stream: true }, &epoch);
        // The next stream may start as soon as the connection is in the pool.
        drop(permit);
    }
}

/// Receiving half of a stream.
#[derive(Debug)]
pub(crate) struct StreamReader {
    stream: OwnedReadHalf,
    decoder: Decoder,
    /// Share of the daemon's memory budget, for long messages that are not complete yet.
    share: BudgetShare,
    /// Start of the wait for the next message. It is kept when the wait is cancelled, so that a caller with another
    /// timer does not extend [`SILENCE`].
    waiting_since: Option<Instant>,
    epoch: CancellationToken,
    pace: Arc<StreamPace>,
    /// Action that is due before the next message is read.
    turn: NextStep,
}

impl StreamReader {
    /// Returns the next message. Fails after [`SILENCE`] without a complete message, counted from the first of the calls
    /// that waited for it.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<ChannelMessage, StreamEnd> {
        self.next_packet().await.map(|(_, message)| message)
    }

    /// Returns the next message and its encoded bytes, which can be passed on unchanged. Fails like
    /// [`next`](Self::next).
    ///
    /// Cancel safe.
    pub(crate) async fn next_packet(&mut self) -> Result<(Bytes, ChannelMessage), StreamEnd> {
        match self.turn {
            NextStep::Continue => {}
            NextStep::Yield => yield_now().await,
            NextStep::WaitUntil(time) => sleep_until(time).await,
        }
        self.turn = NextStep::Continue;
        // Messages that have already arrived are read without waiting for the socket, so other tasks must get
        // their turn here.
        consume_budget().await;
        let Self { stream, decoder, share, waiting_since, epoch, pace, turn } = self;
        let message = tokio::select! {
            // Messages that have arrived come first: the last ones of an agent that is gone are still valid.
            biased;
            message = in_time(stream, decoder, share, waiting_since) => message,
            () = epoch.cancelled() => Err(StreamEnd::Replaced),
        };
        *waiting_since = None;
        if let Ok((packet, _)) = &message {
            *turn = pace.charge(packet.len(), Instant::now());
        }
        message
    }
}

/// Returns the next message, or [`StreamEnd::Silent`] after [`SILENCE`] since `waiting_since`.
///
/// If the deadline passed while the caller did not poll, bytes that have arrived meanwhile start the wait again: the agent
/// could not send the rest of a long message.
async fn in_time(
    stream: &mut OwnedReadHalf,
    decoder: &mut Decoder,
    share: &mut BudgetShare,
    waiting_since: &mut Option<Instant>,
) -> Result<(Bytes, ChannelMessage), StreamEnd> {
    let deadline = *waiting_since.get_or_insert_with(Instant::now) + SILENCE;
    let held = decoder.pending().len();
    let was_absent = Instant::now() >= deadline;
    // A message that has arrived is returned even after the deadline.
    if let Ok(message) = timeout_at(deadline, whole(stream, decoder, share)).await {
        return message;
    }
    if !was_absent || decoder.pending().len() == held {
        return Err(StreamEnd::Silent);
    }
    let now = Instant::now();
    *waiting_since = Some(now);
    let message = timeout_at(now + SILENCE, whole(stream, decoder, share)).await;
    message.unwrap_or(Err(StreamEnd::Silent))
}

async fn whole(
    stream: &mut OwnedReadHalf,
    decoder: &mut Decoder,
    share: &mut BudgetShare,
) -> Result<(Bytes, ChannelMessage), StreamEnd> {
    loop {
        if let Some(payload) = decoder.next_frame()? {
            if !share.is_empty() {
                share.release();
            }
            let message = ChannelMessage::decode(payload.clone())?;
            return Ok((payload, message));
        }
        let held = decoder.capacity();
        if held > FREE && !share.try_grow_to(held) {
            return Err(StreamEnd::NoRoom);
        }
        if stream.read_buf(decoder.read_buffer()).await.map_err(StreamEnd::Lost)? == 0 {
            return Err(if decoder.is_empty() {
                StreamEnd::Closed
            } else {
                StreamEnd::Lost(io::ErrorKind::UnexpectedEof.into())
            });
        }
    }
}

/// Sending half of a stream.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    stream: OwnedWriteHalf,
    buffer: BytesMut,
}

impl StreamWriter {
    /// Appends a message to the queue. The queue has no limit: the caller must bound it, by
    /// [`pending`](Self::pending).
    pub(crate) fn queue(&mut self, message: &ChannelMessage) {
        message.encode(&mut self.buffer);
    }

    /// Returns the number of queued bytes that are not written yet.
    pub(crate) fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Writes all queued messages.
    ///
    /// Cancel safe: the next call continues where this one stopped.
    pub(crate) async fn flush(&mut self) -> Result<(), StreamEnd> {
        while self.buffer.has_remaining() {
            let written = self.stream.write_buf(&mut self.buffer).await.map_err(StreamEnd::Lost)?;
            if written == 0 {
                return Err(StreamEnd::Lost(io::ErrorKind::WriteZero.into()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
