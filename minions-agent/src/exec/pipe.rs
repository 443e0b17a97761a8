//! The agent's end of a program's pipe or socket, or the master side of its terminal.

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::termios::{SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor. Clones share it, because a terminal is both read and written.
#[derive(Debug, Clone)]
pub(super) struct PipeEnd(Arc<AsyncFd<OwnedFd>>);

/// Result of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome<'a> {
    Bytes(&'a [u8]),
    /// Nothing to read yet.
    Nothing,
    /// End of the data: no process has the other end open.
    End,
}

impl PipeEnd {
    /// Registers a descriptor, which must be non-blocking, with the runtime.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Arc::new(crate::watched::watch(fd)?)))
    }

    /// Waits until bytes or the end of the data can be read. Cancel safe.
    pub(super) async fn readable(&self) {
        // An error is reported by the read that follows.
        let _ = self.0.readable().await.map(|mut guard| guard.retain_ready());
    }

    /// Waits until there is room to write. Cancel safe.
    pub(super) async fn writable(&self) {
        let _ = self.0.writable().await.map(|mut guard| guard.retain_ready());
    }

    /// Reads without waiting.
    pub(super) fn read<'a>(&self, buffer: &'a mut [MaybeUninit<u8>]) -> ReadOutcome<'a> {
        let read = self.0.try_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, buffer)?.0));
        match read {
            Ok([]) => ReadOutcome::End,
            Ok(bytes) => ReadOutcome::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ReadOutcome::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => ReadOutcome::Nothing,
            // A terminal's master reports EIO once all processes have closed the terminal.
            Err(_) => ReadOutcome::End,
        }
    }

    /// Writes without waiting, and returns the number of bytes written. An error means that there is no reader.
    pub(super) fn write(&self, slices: (&[u8], &[u8])) -> io::Result<usize> {
        let slices = [IoSlice::new(slices.0), IoSlice::new(slices.1)];
        match self.0.try_io(Interest::WRITABLE, |fd| Ok(rustix::io::writev(fd, &slices)?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            written => written,
        }
    }

    /// Ends the direction to the program. Returns false for a pipe, which must be closed instead.
    pub(super) fn shut_down(&self) -> bool {
        shutdown(self.0.get_ref(), Shutdown::Write).is_ok()
    }

    /// Returns the number of bytes that can be read without waiting.
    pub(super) fn waiting(&self) -> u64 {
        rustix::io::ioctl_fionread(self.0.get_ref()).unwrap_or(0)
    }

    /// Sets the terminal's size.
    pub(super) fn resize(&self, rows: u16, cols: u16) -> Result<(), Errno> {
        tcsetwinsize(self.0.get_ref(), winsize(rows, cols))
    }

    /// Returns the character that the terminal treats as the end of the input: Ctrl-D, unless it was changed.
    pub(super) fn end_of_input(&self) -> u8 {
        tcgetattr(self.0.get_ref())
            .map_or(4, |termios| termios.special_codes[SpecialCodeIndex::VEOF])
    }
}

pub(super) fn winsize(rows: u16, cols: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}
