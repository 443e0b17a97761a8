//! Connection to a VM, with the permit for its descriptor, and with a limit on the memory that a reply of the
//! guest may take.

use crate::budget::{BudgetShare, FREE};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

/// Stream to an agent after a successful handshake.
///
/// The bytes that are read between two writes are one reply, which the reader keeps in memory until it is complete.
/// A reply of more than [`FREE`] bytes must fit the daemon's budget; otherwise reading fails with
/// [`OutOfMemory`](io::ErrorKind::OutOfMemory).
#[derive(Debug)]
pub(crate) struct AgentSocket {
    stream: UnixStream,
    share: BudgetShare,
    /// Bytes that were read since the last write.
    read: usize,
    descriptor: OwnedSemaphorePermit,
}

impl AgentSocket {
    pub(super) fn new(
        stream: UnixStream,
        share: BudgetShare,
        descriptor: OwnedSemaphorePermit,
    ) -> Self {
        Self { stream, share, read: 0, descriptor }
    }

    /// Releases the memory of the last reply, which has been processed. The connection may now be idle for long.
    pub(crate) fn rest(&mut self) {
        self.read = 0;
        self.share.release();
    }

    /// Splits the connection into its parts, for a stream, which accounts for its memory differently.
    pub(super) fn into_parts(self) -> (UnixStream, BudgetShare, OwnedSemaphorePermit) {
        let Self { stream, mut share, descriptor, .. } = self;
        share.release();
        (stream, share, descriptor)
    }
}

/// Reports whether reading failed because the reply did not fit the daemon's budget.
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
        // This is the next request: the reply that was read before has been processed.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::MemoryBudget;
    use minions_proto::connection::{Connection, ExchangeError};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Semaphore;
    use tokio::time::Instant;

    /// Length of each reply, in bytes.
    const LEN: usize = 512 * 1024;

    /// Returns a connection to a guest that answers each request with [`LEN`] bytes.
    fn connection(budget: &MemoryBudget) -> Connection<AgentSocket> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let descriptor = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        tokio::spawn(async move {
            let prefix = u32::try_from(LEN).unwrap().to_be_bytes();
            let reply = [&prefix[..], &vec![b' '; LEN]].concat();
            while theirs.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {
                if theirs.write_all(&reply).await.is_err() {
                    return;
                }
            }
        });
        Connection::new(AgentSocket::new(ours, budget.share(), descriptor))
    }

    async fn exchange(connection: &mut Connection<AgentSocket>) -> Result<usize, ExchangeError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        connection.exchange(b"request", deadline).await.map(|reply| reply.len())
    }

    #[tokio::test]
    async fn a_long_reply_is_charged_to_the_budget_and_released_afterwards() {
        let budget = MemoryBudget::default();
        let mut connection = connection(&budget);
        for _ in 0..3 {
            assert_eq!(exchange(&mut connection).await.unwrap(), LEN);
            assert!((LEN..2 * LEN).contains(&budget.used()), "{}", budget.used());
        }
        connection.get_mut().rest();
        assert_eq!(budget.used(), 0);
        exchange(&mut connection).await.unwrap();
        drop(connection);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_reply_that_exceeds_the_budget_is_refused_and_its_connection_not_reused() {
        let budget = MemoryBudget::default();
        let mut others = budget.share();
        while others.try_grow_to(budget.used() + 1) {}
        let full = budget.used();
        let mut connection = connection(&budget);
        let refused = exchange(&mut connection).await.unwrap_err();
        assert!(matches!(refused, ExchangeError::Lost { source, .. } if is_no_room(&source)));
        assert!(!connection.is_reusable());
        assert_eq!(budget.used(), full);
    }
}
