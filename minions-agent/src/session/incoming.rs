//! Receiving side of a connection: decodes frames, and detects that the host has closed.

use super::SessionError;
use crate::host_stream::BoxedStream;
use minions_proto::frame::{Decoder, FrameError};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

/// Deadline from a frame's first byte to its last.
const FRAME_DEADLINE: Duration = Duration::from_secs(30);

/// Limit of bytes that are read ahead while a request runs: enough for pipelined requests. Further bytes stay
/// in the socket's buffer.
const READ_AHEAD: usize = 64 * 1024;

/// Time for a request to complete after the host has closed its side. The agent cannot tell a host that is gone
/// from one that has only finished sending and still waits for the reply.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(1);

/// Result of receiving a frame.
#[derive(Debug)]
pub(super) enum ReceivedFrame {
    Payload(bytes::Bytes),
    Malformed(FrameError),
    /// The host closed between two frames.
    End,
}

/// A stream, with the bytes that have been read from it but not yet used.
pub(super) struct FrameReader<'a> {
    stream: BoxedStream<'a>,
    decoder: Decoder,
    ended: bool,
}

impl<'a> FrameReader<'a> {
    pub(super) fn new(stream: BoxedStream<'a>) -> Self {
        Self { stream, decoder: Decoder::new(), ended: false }
    }

    /// Returns both halves of the stream, for channel mode, with the decoder that holds bytes already read.
    pub(super) fn split(
        &mut self,
    ) -> (ReadHalf<&mut BoxedStream<'a>>, WriteHalf<&mut BoxedStream<'a>>, &mut Decoder) {
        let (read, write) = tokio::io::split(&mut self.stream);
        (read, write, &mut self.decoder)
    }

    /// Returns the stream, for writing a reply. Reading from it would lose frames.
    pub(super) fn stream(&mut self) -> &mut BoxedStream<'a> {
        &mut self.stream
    }

    /// Waits for the first byte of the next frame, or for the end.
    ///
    /// Cancel safe.
    pub(super) async fn begun(&mut self) -> Result<(), SessionError> {
        if self.decoder.is_empty() {
            self.fill().await?;
        }
        Ok(())
    }

    /// Receives the next frame. Waits without limit for its first byte, and up to 30 s for its last.
    ///
    /// Cancel safe: what has arrived stays in the decoder.
    pub(super) async fn next(&mut self) -> Result<ReceivedFrame, SessionError> {
        if self.decoder.is_empty() {
            self.fill().await?;
            if self.ended {
                return Ok(ReceivedFrame::End);
            }
        }
        timeout(FRAME_DEADLINE, self.finish()).await.map_err(|_| SessionError::SlowFrame)?
    }

    /// Receives the rest of a frame that has begun.
    async fn finish(&mut self) -> Result<ReceivedFrame, SessionError> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(payload)) => return Ok(ReceivedFrame::Payload(payload)),
                Err(error) => return Ok(ReceivedFrame::Malformed(error)),
                Ok(None) if self.ended => return Err(SessionError::Truncated),
                Ok(None) => self.fill().await?,
            }
        }
    }

    /// Runs a request while watching the connection. If the host closes, the request is dropped after
    /// [`HALF_CLOSED_GRACE`].
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

    /// Reads more bytes into the decoder. Cancel safe: `read_buf` is, and there is no await after it.
    async fn fill(&mut self) -> io::Result<()> {
        if !self.ended {
            self.ended = self.stream.read_buf(self.decoder.read_buffer()).await? == 0;
        }
        Ok(())
    }
}
