//! Standard input, for a remote program.
//!
//! Reading blocks, and a blocked read from a terminal cannot be interrupted, so it happens in a separate thread
//! that ends with the process. The thread reads only as much as there is room for: input that the program does not
//! take remains for the next reader of the same file or terminal.

use crate::failure::Failure;
use bytes::Bytes;
use minions_proto::channel::CHUNK_LEN;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};
use rustix::stdio::stdin;
use rustix::termios::isatty;
use std::future::pending;
use std::io;
use tokio::sync::mpsc;

/// Handle of the reading thread.
#[derive(Debug)]
pub(super) struct StdinReader {
    demand: mpsc::Sender<usize>,
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    asked: bool,
}

impl StdinReader {
    pub(super) fn start() -> Result<Self, Failure> {
        let (demand, mut demanded) = mpsc::channel::<usize>(1);
        let (sender, chunks) = mpsc::channel(1);
        let work = move || {
            let mut buffer = vec![0; CHUNK_LEN];
            while let Some(room) = demanded.blocking_recv() {
                let room = room.min(buffer.len());
                let chunk = read_some(&mut buffer[..room]);
                let chunk = chunk.map(|len| Bytes::copy_from_slice(&buffer[..len]));
                if sender.blocking_send(chunk).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("input".into()).spawn(work).map_err(Failure::Runtime)?;
        Ok(Self { demand, chunks, asked: false })
    }

    /// Reads at most `room` bytes; returns none at the end of the input. Waits forever if `room` is 0. Cancel safe:
    /// the next call returns bytes that were read meanwhile.
    pub(super) async fn next(&mut self, room: usize) -> io::Result<Bytes> {
        if !self.asked {
            if room == 0 {
                return pending().await;
            }
            // There is only one demand at a time, so the queue has room. If the thread has died, `recv` fails.
            self.asked = true;
            let _ = self.demand.try_send(room);
        }
        let chunk = self.chunks.recv().await;
        self.asked = false;
        chunk.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Reads standard input to its end, or until there are more than `at_most` bytes. Blocks.
///
/// Does not use `std::io::stdin`, which treats a descriptor that is not readable as empty input.
pub(crate) fn read_all(at_most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; CHUNK_LEN];
    while bytes.len() <= at_most {
        match read_some(&mut buffer)? {
            0 => break,
            len => bytes.extend_from_slice(&buffer[..len]),
        }
    }
    Ok(bytes)
}

fn read_some(buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match read(stdin(), &mut *buffer) {
            Ok(len) => return Ok(len),
            // EIO is the end of the input on a terminal that hung up. On a file or device it is a read error, and
            // must not look like the end: the program would get a part of its input.
            Err(Errno::IO) if isatty(stdin()) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                match poll(&mut [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
