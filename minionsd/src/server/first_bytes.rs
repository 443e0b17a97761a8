//! Deadline for a client's first bytes.
//!
//! hyper reads these bytes to distinguish HTTP/1 from HTTP/2 before its own deadlines begin. Without this deadline, a
//! client that connects and sends nothing would occupy a connection slot forever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Number of bytes that the deadline covers: the length of the HTTP/2 preface. No HTTP/1.1 request with a `Host` header
/// is shorter.
const FIRST: usize = 24;

/// A stream whose first [`FIRST`] bytes must arrive before a deadline.
pub(super) struct FirstBytes<S> {
    stream: S,
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> FirstBytes<S> {
    /// Wraps a new connection; its first bytes must arrive within `deadline`.
    pub(super) fn of(stream: S, deadline: Duration) -> Self {
        Self { stream, missing: FIRST, deadline: Box::pin(sleep(deadline)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.missing > 0 {
            if read.is_pending() {
                ready!(self.deadline.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_too_few_bytes_times_out() {
        for sent in [&b""[..], b"PRI * HTTP"] {
            let (mut client, server) = duplex(64);
            client.write_all(sent).await.unwrap();
            let started = Instant::now();
            let mut all = Vec::new();
            let ended = FirstBytes::of(server, DEADLINE).read_to_end(&mut all).await.unwrap_err();
            assert_eq!((ended.kind(), all.as_slice()), (io::ErrorKind::TimedOut, sent));
            assert_eq!(started.elapsed(), DEADLINE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_deadline_applies_after_the_first_bytes() {
        let (mut client, server) = duplex(64);
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n";
        client.write_all(request).await.unwrap();
        let mut server = FirstBytes::of(server, DEADLINE);
        server.read_exact(&mut [0; 33]).await.unwrap();
        let more = tokio::time::timeout(DEADLINE * 2, server.read_u8()).await;
        assert!(more.is_err(), "a stream whose first bytes have arrived must not time out");
    }
}
