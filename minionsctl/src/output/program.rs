//! A remote program's output, byte for byte and as it comes.
//!
//! Writing to a pipe or a terminal that nobody reads blocks for as long as its reader likes. That
//! happens in a thread of its own, so that input, signals and heartbeats go on meanwhile.

use crate::failure::Failure;
use bytes::Bytes;
use minions_proto::channel::OutputStream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};
use rustix::stdio::{stderr, stdout};
use std::io;
use std::os::fd::BorrowedFd;
use tokio::sync::mpsc;

/// Our standard output and error, as the remote program's.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    jobs: mpsc::Sender<(OutputStream, Bytes)>,
    done: mpsc::Receiver<io::Result<()>>,
    writing: bool,
}

impl ProgramOutput {
    /// Starts the thread. It ends with the value, or with the process if it is blocked.
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

    /// Whether something is being written. Nothing more may be given until it is.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing
    }

    /// Begins to write.
    pub(crate) fn begin(&mut self, stream: OutputStream, bytes: Bytes) {
        // One job at a time, so there is room. A thread that died tells in `written`.
        self.writing = true;
        let _ = self.jobs.try_send((stream, bytes));
    }

    /// Waits until it is written. Cancel safe.
    pub(crate) async fn written(&mut self) -> io::Result<()> {
        let result = self.done.recv().await;
        self.writing = false;
        result.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Writes all of it, blocking.
pub(crate) fn write_to(stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        OutputStream::Stdout => write_all(stdout(), bytes),
        OutputStream::Stderr => write_all(stderr(), bytes),
    }
}

/// Unbuffered, and also to a descriptor that whoever started us made non-blocking.
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
