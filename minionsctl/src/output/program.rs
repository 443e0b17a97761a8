//! Output of a remote program, byte for byte as it arrives.
//!
//! Writing to a pipe or a terminal blocks until its reader continues. It happens in a separate thread, so that
//! input, signals and heartbeats are still handled meanwhile.

use crate::failure::Failure;
use bytes::Bytes;
use minions_proto::channel::OutputStream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};
use rustix::stdio::{stderr, stdout};
use std::io;
use std::os::fd::BorrowedFd;
use tokio::sync::mpsc;

/// Writer to standard output and standard error, in a separate thread.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    jobs: mpsc::Sender<(OutputStream, Bytes)>,
    done: mpsc::Receiver<io::Result<()>>,
    writing: bool,
}

impl ProgramOutput {
    /// Starts the thread. It ends when the value is dropped, or with the process if it is blocked.
    pub(crate) fn start() -> Result<Self, Failure> {
        let (jobs, mut queue) = mpsc::channel::<(OutputStream, Bytes)>(1);
        let (report, done) = mpsc::channel(1);
        let work = move || {
            while let Some((stream, bytes)) = queue.blocking_recv() {
                if report.blocking_send(write_to(stream, &bytes)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("output".into()).spawn(work).map_err(Failure::Runtime)?;
        Ok(Self { jobs, done, writing: false })
    }

    /// Reports whether a write is in progress. Until [`written`](Self::written) returns, no other may begin.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing
    }

    /// Begins to write `bytes`.
    pub(crate) fn begin(&mut self, stream: OutputStream, bytes: Bytes) {
        // There is only one job at a time, so the queue has room. If the thread has died, `written` fails.
        self.writing = true;
        let _ = self.jobs.try_send((stream, bytes));
    }

    /// Waits until the write has completed. Cancel safe.
    pub(crate) async fn written(&mut self) -> io::Result<()> {
        let result = self.done.recv().await;
        self.writing = false;
        result.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Writes all bytes, blocking.
pub(crate) fn write_to(stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        OutputStream::Stdout => write_all(stdout(), bytes),
        OutputStream::Stderr => write_all(stderr(), bytes),
    }
}

/// Writes all bytes without a buffer. Also works if the parent process made the descriptor non-blocking.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
