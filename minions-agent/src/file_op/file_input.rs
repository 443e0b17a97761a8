//! Standard input of an operation: data up to the end of the input, which differs from the end of the stream.
//!
//! Standard input is a socket. The agent ends the input by half-closing its side of the socket, and keeps that side
//! open until the process has ended. If the agent is killed, or ends the operation because its client is gone, the
//! socket is closed instead, which shuts down both directions (`POLLHUP`). The kernel does this in one step, so a
//! closed socket is never mistaken for the end of the input.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// The input of this process.
#[derive(Debug)]
pub(super) struct FileInput {
    has_ended: bool,
    is_cut: Rc<Cell<bool>>,
}

impl FileInput {
    /// Takes standard input.
    pub(super) fn standard() -> Self {
        Self { has_ended: false, is_cut: Rc::default() }
    }

    /// Returns a flag that is set when the input is cut. A parser of the input may hide the error itself.
    pub(super) fn cut_flag(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.is_cut)
    }

    /// Reads and drops everything up to the end of the input.
    pub(super) fn skip_to_end(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(|_| ())
    }

    fn cut(&self) -> io::Error {
        self.is_cut.set(true);
        Errno::CANCELED.into()
    }
}

impl Read for FileInput {
    /// Reads input.
    ///
    /// # Errors
    ///
    /// `ECANCELED` if the stream is cut before the end of the input.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_ended || buffer.is_empty() {
            return Ok(0);
        }
        match rustix::io::retry_on_intr(|| rustix::io::read(rustix::stdio::stdin(), &mut *buffer)) {
            Ok(0) if is_cut()? => Err(self.cut()),
            Ok(0) => {
                self.has_ended = true;
                Ok(0)
            }
            Ok(len) => Ok(len),
            Err(Errno::CONNRESET) => Err(self.cut()),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_cut() -> io::Result<bool> {
    let stdin = rustix::stdio::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}
