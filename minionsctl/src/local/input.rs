//! Our standard input, for a program elsewhere.
//!
//! Reading blocks, and nothing can stop a read from a terminal that nobody types at; so it happens in
//! a thread of its own, which ends with the process. It reads only what there is room for: what the
//! program doesn't take is left to whoever comes after us.

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

/// The thread's other end.
#[derive(Debug)]
pub(super) struct Input {
    demand: mpsc::Sender<usize>,
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    asked: bool,
}

impl Input {
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

    /// At most `room` bytes; none at the end. Never, if there is no room. Cancel safe: what was read
    /// is given to the next call.
    pub(super) async fn next(&mut self, room: usize) -> io::Result<Bytes> {
        if !self.asked {
            if room == 0 {
                return pending().await;
            }
            // One demand at a time, so there is room. A thread that died is an end below.
            self.asked = true;
            let _ = self.demand.try_send(room);
        }
        let chunk = self.chunks.recv().await;
        self.asked = false;
        chunk.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Reads all of our input, and stops beyond `at_most` bytes. Blocks.
///
/// The standard library's standard input takes a descriptor that cannot be read for an empty one.
pub(crate) fn read_all(at_most: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; CHUNK_LEN]);
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
            // The end on a terminal that hung up. From a file or a device it is a failed read, and taking it for
            // the end would give the program a part of its input.
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
