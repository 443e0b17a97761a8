//! Streams between a thread that reads and writes files, which blocks, and a connection.

use super::failure_log::FailureLog;
use super::progress::CopyProgress;
use crate::client::{END, FileBody, UploadSender};
use crate::failure::Failure;
use bytes::{Buf, Bytes, BytesMut};
use minions_tree::content::ContentOutput;
use minions_tree::pack::PackOutput;
use minions_tree::{BUFFER_LEN, FileError};
use std::io::{self, Read, Write};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Number of chunks between the connection and the thread.
const CHUNKS: usize = 8;

/// Longest rest of a stream after its last member that is read and dropped, in bytes: the padding of other programs.
const MAX_REST: u64 = 1024 * 1024;

/// Stack of a thread, in bytes. A tree of the largest depth needs about 2 MiB.
const STACK: usize = 8 * 1024 * 1024;

/// Runs work that blocks in a thread of its own. At the end of the command, the thread ends with the process.
pub(super) fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<ThreadResult<T>, Failure> {
    let (sender, receiver) = oneshot::channel();
    let work = move || drop(sender.send(work()));
    std::thread::Builder::new()
        .name("files".into())
        .stack_size(STACK)
        .spawn(work)
        .map_err(Failure::Runtime)?;
    Ok(ThreadResult(receiver))
}

/// Result of work in a thread.
#[derive(Debug)]
pub(super) struct ThreadResult<T>(oneshot::Receiver<T>);

impl<T> ThreadResult<T> {
    /// Waits for the result.
    pub(super) async fn wait(self) -> Result<T, Failure> {
        let ended = || Failure::Runtime(io::Error::other("a thread ended early"));
        self.0.await.map_err(|_| ended())
    }
}

/// Writer to the body of a request.
#[derive(Debug)]
pub(super) struct ChannelWriter {
    sender: UploadSender,
    buffer: BytesMut,
    progress: CopyProgress,
    log: Arc<FailureLog>,
    written: u64,
}

impl ChannelWriter {
    pub(super) fn new(
        sender: UploadSender,
        progress: &CopyProgress,
        log: &Arc<FailureLog>,
    ) -> Self {
        let (progress, log) = (progress.clone(), Arc::clone(log));
        Self { sender, buffer: BytesMut::with_capacity(BUFFER_LEN), progress, log, written: 0 }
    }

    /// Ends the body if `result` is a success, and aborts the request otherwise. Returns the number of bytes.
    pub(super) fn finish<T>(mut self, result: Result<T, FileError>) -> Result<u64, FileError> {
        let sent = result.and_then(|_| self.end().map_err(|error| FileError::not_sent(&error)));
        if let Err(error) = &sent {
            // If the connection is closed, there is nothing to abort.
            let _ = self.sender.blocking_send(Err(io::Error::other(error.to_string())));
        }
        sent.map(|()| self.written)
    }
}

impl ChannelWriter {
    fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        self.sender.blocking_send(Ok(END)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BUFFER_LEN.saturating_sub(self.buffer.len()).min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..room]);
        if self.buffer.len() >= BUFFER_LEN {
            self.flush()?;
        }
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.progress.add(chunk.len());
        self.written += chunk.len() as u64;
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl ContentOutput for ChannelWriter {}

impl PackOutput for ChannelWriter {
    fn warn(&mut self, error: &FileError) {
        self.log.local(error);
    }
}

/// Part of a stream that is received.
#[derive(Debug)]
enum ReceivedPart {
    Data(Bytes),
    /// The stream is complete.
    End,
}

/// Reader of an answer's body. The end of the channel without [`ReceivedPart::End`] is an error, so an incomplete
/// stream is never mistaken for a complete one.
#[derive(Debug)]
pub(super) struct ChannelReader {
    parts: mpsc::Receiver<ReceivedPart>,
    current: Bytes,
    has_ended: bool,
}

impl ChannelReader {
    /// Reads and drops the rest of the stream.
    ///
    /// # Errors
    ///
    /// The stream is incomplete, or much longer than its members.
    pub(super) fn skip_to_end(mut self) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self).take(MAX_REST), &mut io::sink())?;
        if skipped == MAX_REST {
            return Err(io::Error::other("unexpected data after the last file"));
        }
        Ok(())
    }
}

impl ChannelReader {
    /// Waits for the next bytes, and returns them without a copy; none at the end of the stream.
    ///
    /// # Errors
    ///
    /// The stream is incomplete.
    pub(super) fn next_bytes(&mut self) -> io::Result<Bytes> {
        self.fill()?;
        Ok(std::mem::take(&mut self.current))
    }

    /// Waits until there are bytes, or the stream has ended.
    fn fill(&mut self) -> io::Result<()> {
        while self.current.is_empty() && !self.has_ended {
            match self.parts.blocking_recv() {
                Some(ReceivedPart::Data(bytes)) => self.current = bytes,
                Some(ReceivedPart::End) => self.has_ended = true,
                None => return Err(io::Error::other("the transfer broke off")),
            }
        }
        Ok(())
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let len = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

/// Sender of received bytes to a [`ChannelReader`].
#[derive(Debug)]
pub(super) struct ReceivedBytes(mpsc::Sender<ReceivedPart>);

/// Returns a reader, and the sender of its bytes.
pub(super) fn received() -> (ReceivedBytes, ChannelReader) {
    let (sender, parts) = mpsc::channel(CHUNKS);
    (ReceivedBytes(sender), ChannelReader { parts, current: Bytes::new(), has_ended: false })
}

impl ReceivedBytes {
    /// Moves the body of an answer to the reader, and returns its length. Stops early if the reader is dropped, whose
    /// thread then has the reason.
    pub(super) async fn pump(
        self,
        mut body: FileBody<'_>,
        progress: &CopyProgress,
    ) -> Result<u64, Failure> {
        let mut len = 0;
        while let Some(bytes) = body.next().await? {
            len += bytes.len() as u64;
            progress.add(bytes.len());
            if self.0.send(ReceivedPart::Data(bytes)).await.is_err() {
                return Ok(len);
            }
        }
        let _ = self.0.send(ReceivedPart::End).await;
        Ok(len)
    }
}

/// Returns the failure that caused the others: if a thread could not send or receive, that of the connection.
pub(super) fn first_cause<T, C>(
    thread: Result<T, FileError>,
    connection: Result<C, Failure>,
) -> Result<(T, C), Failure> {
    match (thread, connection) {
        (Ok(thread), Ok(connection)) => Ok((thread, connection)),
        (Err(error), Err(failure)) if matches!(error.step(), "send" | "tar" | "input") => {
            Err(failure)
        }
        (Err(error), _) => Err(Failure::Copy(error.into())),
        (Ok(_), Err(failure)) => Err(failure),
    }
}
