//! The host's side of a connection: frames, and whether the host is still there.

use super::SessionError;
use minions_proto::frame::{Decoder, FrameError};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::timeout;

/// From a frame's first byte to its last.
const FRAME_DEADLINE: Duration = Duration::from_secs(30);

/// Read ahead while a request runs, at most: enough for pipelined requests. Past it the socket's
/// own buffer is the limit.
const READ_AHEAD: usize = 64 * 1024;

/// What a request may still take after the host closed its side. A host that is gone looks the
/// same from here as one that only finished sending and still waits for a reply.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(1);

/// What came in.
#[derive(Debug)]
pub(super) enum Frame {
    Payload(bytes::Bytes),
    Malformed(FrameError),
    /// Closed between two frames.
    End,
}

/// A stream, and what has been read from it but not yet used.
#[derive(Debug)]
pub(super) struct Incoming<S> {
    stream: S,
    decoder: Decoder,
    ended: bool,
}

impl<S: AsyncRead + Unpin> Incoming<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, decoder: Decoder::new(), ended: false }
    }

    /// Both halves of the stream at once, for channel mode, and what was read of it already.
    pub(super) fn split(&mut self) -> (ReadHalf<&mut S>, WriteHalf<&mut S>, &mut Decoder)
    where
        S: AsyncWrite,
    {
        let (read, write) = tokio::io::split(&mut self.stream);
        (read, write, &mut self.decoder)
    }

    /// To write a reply to. Reading from it would lose frames.
    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next frame. Waits for ever for its first byte, but not for its last.
    ///
    /// Cancel safe: what has arrived stays in the decoder.
    pub(super) async fn next(&mut self) -> Result<Frame, SessionError> {
        if self.decoder.is_empty() {
            self.fill().await?;
            if self.ended {
                return Ok(Frame::End);
            }
        }
        timeout(FRAME_DEADLINE, self.finish()).await.map_err(|_| SessionError::SlowFrame)?
    }

    /// The frame that has begun.
    async fn finish(&mut self) -> Result<Frame, SessionError> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(payload)) => return Ok(Frame::Payload(payload)),
                Err(error) => return Ok(Frame::Malformed(error)),
                Ok(None) if self.ended => return Err(SessionError::Truncated),
                Ok(None) => self.fill().await?,
            }
        }
    }

    /// Runs a request while watching the host: if it goes away, so does the work.
    pub(super) async fn attend<W: Future>(&mut self, work: W) -> Result<W::Output, SessionError> {
        tokio::pin!(work);
        while !self.ended && self.decoder.capacity() < READ_AHEAD {
            tokio::select! {
                biased;
                output = &mut work => return Ok(output),
                read = self.fill() => read?,
            }
        }
        if self.ended {
            timeout(HALF_CLOSED_GRACE, work).await.map_err(|_| SessionError::Abandoned)
        } else {
            Ok(work.await)
        }
    }

    /// Cancel safe: `read_buf` is, and nothing is awaited after it.
    async fn fill(&mut self) -> io::Result<()> {
        if !self.ended {
            self.ended = self.stream.read_buf(self.decoder.read_buffer()).await? == 0;
        }
        Ok(())
    }
}
