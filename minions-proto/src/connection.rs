//! Host side of a connection: a request, its reply, the next request.
//!
//! ```text
//!          exchange() starts            whole reply read, nothing after it
//!   idle ────────────────────▶ poisoned ───────────────────────────────────▶ idle
//!                                  │ error, deadline, or the future dropped
//!                                  ▼
//!                           stays poisoned: close it
//! ```
//!
//! A connection is poisoned from before the first byte of a request is written until the last byte
//! of its reply is read. An exchange that is dropped in between leaves a reply in the stream that
//! the next caller must never receive.
//!
//! A request can also be sent without waiting for its reply ([`Connection::ask`]), and its reply received
//! later ([`Connection::answer`]). The connection is then poisoned until the last outstanding reply is read.
//!
//! A request that [opens](Connection::open) a stream and gets an `ok` reply ends this cycle: after
//! it the connection is in [channel mode](crate::channel) and is [taken
//! apart](Connection::into_parts).

use crate::foreign_service::{ForeignService, LOOKED_AT};
use crate::frame::{Decoder, EncodeError, FrameError};
use crate::message::{Call, ReplyError, decode_reply, encode_request};
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// Failure of an exchange.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The request is longer than a frame. Nothing was sent; the connection is reusable.
    #[error("request cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The agent answered with an error. The connection is reusable.
    #[error("agent refused")]
    Agent(#[source] crate::error::AgentError),
    /// The peer closed the connection, or the stream broke.
    #[error("connection lost")]
    Lost {
        /// True if any byte of the request had been written. If not, the request cannot have run.
        sent: bool,
        /// Cause of the loss.
        #[source]
        source: io::Error,
    },
    /// The deadline passed. The request may have run.
    #[error("no complete reply before the deadline")]
    TimedOut,
    /// The peer violated the protocol: bounds, JSON, or unsolicited bytes.
    #[error("peer violated the protocol")]
    Protocol(#[from] ProtocolError),
}

/// Violation of the protocol by a peer.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The length of a frame is out of bounds.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame is not a reply.
    #[error("malformed reply")]
    Reply(#[source] ReplyError),
    /// Bytes arrived before a request, or after its reply.
    #[error("unexpected bytes")]
    Unexpected,
}

/// First bytes of a peer, until its first frame is complete.
#[derive(Debug)]
struct FirstBytes {
    bytes: [u8; LOOKED_AT],
    len: usize,
    complete: bool,
}

impl FirstBytes {
    const NONE: Self = Self { bytes: [0; LOOKED_AT], len: 0, complete: false };

    fn extend(&mut self, more: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let taken = if self.complete { 0 } else { room.len().min(more.len()) };
        room[..taken].copy_from_slice(&more[..taken]);
        self.len += taken;
    }

    fn complete(&mut self) {
        self.complete = true;
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// State of an idle connection, as far as it is visible without a request to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// The connection shows no sign of failure; only a request can confirm that the peer is alive.
    Quiet,
    /// The connection is closed or broken, or the peer sent unsolicited bytes.
    Dead,
}

/// Connection to an agent, after the handshake.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    decoder: Decoder,
    poisoned: bool,
    /// Requests that were sent by [`ask`](Self::ask) and have no reply yet.
    outstanding: usize,
    /// A request is being sent, or its sending was abandoned.
    sending: bool,
    /// The stream ended, or the peer broke the protocol.
    broken: bool,
    /// First bytes of the peer, from which another service than an agent is recognised.
    first: FirstBytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes over a stream directly after its handshake.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            poisoned: false,
            outstanding: 0,
            sending: false,
            broken: false,
            first: FirstBytes::NONE,
        }
    }

    /// Reports whether another request may be sent: no exchange was interrupted.
    pub fn is_reusable(&self) -> bool {
        !self.poisoned
    }

    /// Returns the underlying stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Returns the underlying stream, for operations other than reading and writing.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Checks, without waiting, whether the peer has closed or sent anything since the last
    /// exchange.
    pub fn liveness(&mut self) -> Liveness {
        match self.poll_dead(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Liveness::Quiet,
            Poll::Ready(()) => Liveness::Dead,
        }
    }

    /// Waits until an idle connection is dead: returns at once if it is, and never if it stays
    /// alive.
    ///
    /// Cancel safe.
    pub async fn dead(&mut self) {
        poll_fn(|context| self.poll_dead(context)).await;
    }

    fn poll_dead(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.poisoned && self.decoder.is_empty() {
            let mut bytes = [0; LOOKED_AT];
            let mut seen = ReadBuf::new(&mut bytes);
            // A byte, an end of file or an error all mean the same: an idle connection has none of
            // them.
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut seen)).ok();
            self.first.extend(seen.filled());
            self.broken = true;
        }
        self.poisoned = true;
        Poll::Ready(())
    }

    /// Sends a call and waits for its complete reply until `deadline`.
    ///
    /// Not cancel safe, but safe to cancel: a dropped call leaves the connection poisoned.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`]; afterwards [`is_reusable`](Self::is_reusable) reports whether the
    /// connection survived.
    pub async fn call<C: Call>(
        &mut self,
        call: &C,
        deadline: Instant,
    ) -> Result<C::Reply, ExchangeError> {
        let payload = self.exchange(&encode_request(call)?, deadline).await?;
        self.decoded(decode_reply(&payload))
    }

    fn decoded<T>(&mut self, reply: Result<T, ReplyError>) -> Result<T, ExchangeError> {
        reply.map_err(|error| match error {
            ReplyError::Agent(error) => ExchangeError::Agent(error),
            malformed => {
                (self.poisoned, self.broken) = (true, true);
                ProtocolError::Reply(malformed).into()
            }
        })
    }

    /// Sends a call that opens a stream. After an `ok` reply the connection is in [channel
    /// mode](crate::channel) and poisoned: continue with [`into_parts`](Self::into_parts). After
    /// [`ExchangeError::Agent`] it is reusable.
    ///
    /// Not cancel safe, but safe to cancel, as [`call`](Self::call).
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), except that bytes after an `ok` reply belong to the stream.
    pub async fn open<C: Call>(
        &mut self,
        call: &C,
        deadline: Instant,
    ) -> Result<C::Reply, ExchangeError> {
        let payload = self.whole_exchange(&encode_request(call)?, deadline).await?;
        match decode_reply(&payload) {
            Ok(reply) => Ok(reply),
            Err(ReplyError::Agent(error)) if self.decoder.is_empty() => {
                self.poisoned = false;
                Err(ExchangeError::Agent(error))
            }
            Err(ReplyError::Agent(_)) => Err(ProtocolError::Unexpected.into()),
            Err(malformed) => Err(ProtocolError::Reply(malformed).into()),
        }
    }

    /// Reports whether the connection is poisoned only because a reply did not come: its wait was
    /// abandoned, or its deadline passed. The peer may still send the reply.
    pub fn is_unanswered(&self) -> bool {
        self.poisoned && !self.broken
    }

    /// Returns the number of requests that [`ask`](Self::ask) sent and that have no reply yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Reports whether some bytes of a reply have arrived, but not all of them.
    pub fn has_partial_reply(&self) -> bool {
        !self.decoder.is_empty()
    }

    /// Returns the service at the other end if its first bytes cannot come from an agent. Bytes after the first
    /// frame are not considered.
    pub fn foreign_service(&self) -> Option<ForeignService> {
        ForeignService::recognise(self.first.get())
    }

    /// Sends a call without waiting for its reply, which [`answer`](Self::answer) receives. Further calls
    /// may be sent while replies are outstanding: the peer answers in order.
    ///
    /// Not cancel safe, but safe to cancel: the connection then stays poisoned.
    ///
    /// # Errors
    ///
    /// [`ExchangeError::Lost`] if the stream broke, [`ExchangeError::TimedOut`] if it took not all of the
    /// request before `deadline`; the connection is then useless.
    pub async fn ask<C: Call>(&mut self, call: &C, deadline: Instant) -> Result<(), ExchangeError> {
        self.ask_encoded(&encode_request(call)?, deadline).await
    }

    /// Sends a call that [`encode_request`] has encoded, as [`ask`](Self::ask).
    ///
    /// Not cancel safe, but safe to cancel: the connection then stays poisoned.
    ///
    /// # Errors
    ///
    /// Those of [`ask`](Self::ask).
    pub async fn ask_encoded(
        &mut self,
        request: &[u8],
        deadline: Instant,
    ) -> Result<(), ExchangeError> {
        if self.outstanding == 0 && self.liveness() == Liveness::Dead {
            let source = io::ErrorKind::ConnectionAborted.into();
            return Err(ExchangeError::Lost { sent: false, source });
        }
        self.poisoned = true;
        self.sending = true;
        timeout_at(deadline, self.send(request)).await.map_err(|_| ExchangeError::TimedOut)??;
        self.sending = false;
        self.outstanding += 1;
        Ok(())
    }

    /// Waits for the next outstanding reply to a call that [`ask`](Self::ask) sent. There must be one.
    ///
    /// Cancel safe: bytes of the reply that have arrived are kept.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), without a deadline.
    pub async fn answer<C: Call>(&mut self) -> Result<C::Reply, ExchangeError> {
        let payload = self.receive().await?;
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding == 0 {
            if !self.decoder.is_empty() {
                return Err(ProtocolError::Unexpected.into());
            }
            self.poisoned = self.sending;
        }
        self.decoded(decode_reply(&payload))
    }

    /// Returns the underlying stream, and the decoder with the bytes that were read after the last
    /// reply.
    #[must_use]
    pub fn into_parts(self) -> (S, Decoder) {
        (self.stream, self.decoder)
    }

    /// Sends one encoded frame and returns the payload of the reply.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn exchange(
        &mut self,
        request: &[u8],
        deadline: Instant,
    ) -> Result<Bytes, ExchangeError> {
        let payload = self.whole_exchange(request, deadline).await?;
        if !self.decoder.is_empty() {
            self.broken = true;
            return Err(ProtocolError::Unexpected.into());
        }
        self.poisoned = false;
        Ok(payload)
    }

    /// Leaves the connection poisoned; the caller decides whether bytes may follow the reply.
    async fn whole_exchange(
        &mut self,
        request: &[u8],
        deadline: Instant,
    ) -> Result<Bytes, ExchangeError> {
        if self.liveness() == Liveness::Dead {
            let source = io::ErrorKind::ConnectionAborted.into();
            return Err(ExchangeError::Lost { sent: false, source });
        }
        self.poisoned = true;
        let received = timeout_at(deadline, self.send_and_receive(request))
            .await
            .map_err(|_| ExchangeError::TimedOut)?;
        self.broken |= received.is_err();
        received
    }

    async fn send_and_receive(&mut self, request: &[u8]) -> Result<Bytes, ExchangeError> {
        self.send(request).await?;
        self.receive().await
    }

    /// Cancel safe.
    async fn receive(&mut self) -> Result<Bytes, ExchangeError> {
        loop {
            if let Some(payload) = self.decoder.next_frame().map_err(ProtocolError::from)? {
                self.first.complete();
                return Ok(payload);
            }
            let lost = |source| ExchangeError::Lost { sent: true, source };
            let read = self.stream.read_buf(self.decoder.read_buffer()).await.map_err(lost)?;
            if read == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
            let pending = self.decoder.pending();
            self.first.extend(&pending[pending.len() - read..]);
        }
    }

    async fn send(&mut self, mut request: &[u8]) -> Result<(), ExchangeError> {
        let mut sent = false;
        while !request.is_empty() {
            let written = self
                .stream
                .write(request)
                .await
                .and_then(|n| if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) })
                .map_err(|source| ExchangeError::Lost { sent, source })?;
            sent = true;
            request = &request[written..];
        }
        Ok(())
    }
}
