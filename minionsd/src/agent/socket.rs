//! A connection to a VM as the daemon holds it: with the descriptor that it costs, and with a bound on
//! what the guest may make us keep of a reply.

use crate::budget::{FREE, Share};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

/// A handshaked stream.
///
/// What is read between two writes is one reply, and somebody holds all of it until it is whole. Beyond
/// [`FREE`] it must fit the daemon's budget; if it doesn't, reading fails as *out of memory*.
#[derive(Debug)]
pub(crate) struct AgentSocket {
    stream: UnixStream,
    share: Share,
    /// Bytes since the last write.
    read: usize,
    descriptor: OwnedSemaphorePermit,
}

impl AgentSocket {
    pub(super) fn new(stream: UnixStream, share: Share, descriptor: OwnedSemaphorePermit) -> Self {
        Self { stream, share, read: 0, descriptor }
    }

    /// The reply has been dealt with; the next request may be long in coming.
    pub(crate) fn rest(&mut self) {
        self.read = 0;
        self.share.release();
    }

    /// For a stream, which has its own rules.
    pub(super) fn into_parts(self) -> (UnixStream, Share, OwnedSemaphorePermit) {
        let Self { stream, mut share, descriptor, .. } = self;
        share.release();
        (stream, share, descriptor)
    }
}

/// Whether a failure was ours, for lack of room.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory
}

impl AsyncRead for AgentSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.read += buffer.filled().len() - before;
        let held = self.read;
        if held > FREE && !self.share.try_grow_to(held) {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AgentSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The next request: what was read before has been dealt with.
        self.rest();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
