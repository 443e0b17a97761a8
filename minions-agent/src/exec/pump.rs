//! Moves a program's output from its pipes to the rings of its exec, and input from the exec to the program's pipe.

use super::object::Exec;
use super::pipe::{PipeEnd, ReadOutcome};
use minions_proto::channel::OutputStream;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Maximum number of bytes per read: the default capacity of a pipe.
const READ_LEN: usize = 64 * 1024;

/// Time after the program's end in which output of other processes that have its pipes open is still read.
const DRAIN: Duration = Duration::from_millis(100);

/// The pipes of a program, or its terminal, and the exec that they belong to.
#[derive(Debug)]
pub(super) struct StreamPump {
    exec: Arc<Exec>,
    stdin: Option<PipeEnd>,
    /// Socket whose direction to the program was shut down. It stays open, because the program takes a closed socket as
    /// incomplete input.
    ended_stdin: Option<PipeEnd>,
    stdout: OutputSource,
    stderr: OutputSource,
    /// True for a terminal, on which a character marks the end of the input.
    terminal: bool,
    /// True if the last byte of input was not a newline. A terminal then treats the first end-of-input character as
    /// the end of the line.
    mid_line: bool,
    /// Buffer for a read, made at the first one. Not filled with zeros: most programs write little, and pages that
    /// nothing is written to take no memory.
    scratch: ReadBuffer,
}

/// Memory of which only the part that was read last has been written.
type ReadBuffer = Box<[MaybeUninit<u8>]>;

/// Source of one output stream.
#[derive(Debug)]
struct OutputSource {
    stream: OutputStream,
    /// `None` once the stream has ended.
    pipe: Option<PipeEnd>,
    /// Number of bytes that were in the pipe when the program ended and have not been read.
    owed: u64,
}

/// Next action of the pump.
enum PumpAction {
    Read(OutputStream),
    Write,
    Look,
}

impl StreamPump {
    pub(super) fn new(
        exec: Arc<Exec>,
        stdin: Option<PipeEnd>,
        stdout: PipeEnd,
        stderr: Option<PipeEnd>,
    ) -> Self {
        let source = |stream, pipe| OutputSource { stream, pipe, owed: 0 };
        Self {
            exec,
            stdin,
            ended_stdin: None,
            terminal: stderr.is_none(),
            stdout: source(OutputStream::Stdout, Some(stdout)),
            stderr: source(OutputStream::Stderr, stderr),
            mid_line: false,
            scratch: Box::new_uninit_slice(0),
        }
    }

    /// Moves bytes until `work` is done.
    pub(super) async fn while_doing<W: Future>(&mut self, work: W) -> W::Output {
        tokio::pin!(work);
        loop {
            // Not `biased`: a program that never stops writing must not delay the detection of its end.
            tokio::select! {
                done = &mut work => return done,
                () = self.step() => {}
            }
        }
    }

    /// Reads the rest of the output after the program's end: everything that the program wrote, however slow the
    /// client is, and what other processes write within [`DRAIN`].
    pub(super) async fn drain(&mut self) {
        self.stdin = None;
        self.read_once();
        self.stdout.note_owed();
        self.stderr.note_owed();
        while self.stdout.still_owes() || self.stderr.still_owes() {
            // Another process may read these bytes from the pipe, which causes no notification.
            let _ = timeout(DRAIN, self.step()).await;
        }
        let mut until = Instant::now() + DRAIN;
        while self.stdout.is_open() || self.stderr.is_open() {
            if self.is_full() {
                let since = Instant::now();
                self.step().await;
                // Time spent waiting for the client does not count.
                until += since.elapsed();
            } else if timeout_at(until, self.step()).await.is_err() {
                return;
            }
        }
    }

    /// Reads once from each pipe that is ready. This reaches the end of both, unless the program wrote more, or another
    /// process has them open.
    fn read_once(&mut self) {
        let (stdout_room, stderr_room, _) = self.room();
        for (source, room) in [(&mut self.stdout, stdout_room), (&mut self.stderr, stderr_room)] {
            if room > 0 {
                source.read(&self.exec, room, &mut self.scratch);
            }
        }
    }

    fn is_full(&self) -> bool {
        let (stdout, stderr, _) = self.room();
        (!self.stdout.is_open() || stdout == 0) && (!self.stderr.is_open() || stderr == 0)
    }

    /// Returns the room in both rings, and whether there is input, or its end, for the program.
    fn room(&self) -> (usize, usize, bool) {
        let state = self.exec.state();
        let hold = state.holds();
        let input = !state.input.is_empty() || state.input.is_closed();
        (state.stdout.room(hold), state.stderr.room(hold), input)
    }

    /// Waits until bytes can be moved, and moves them. Also returns when the room may have changed.
    ///
    /// Cancel safe: there is no await after a read or a write.
    async fn step(&mut self) {
        let look_again = self.exec.expire();
        let (stdout_room, stderr_room, input) = self.room();
        let ready = tokio::select! {
            () = self.stdout.readable(), if stdout_room > 0 && self.stdout.is_open() => {
                PumpAction::Read(OutputStream::Stdout)
            }
            () = self.stderr.readable(), if stderr_room > 0 && self.stderr.is_open() => {
                PumpAction::Read(OutputStream::Stderr)
            }
            () = writable(self.stdin.as_ref()), if input && self.stdin.is_some() => PumpAction::Write,
            () = self.exec.moved.notified() => PumpAction::Look,
            () = until(look_again) => PumpAction::Look,
        };
        match ready {
            PumpAction::Read(OutputStream::Stdout) => {
                self.stdout.read(&self.exec, stdout_room, &mut self.scratch);
            }
            PumpAction::Read(OutputStream::Stderr) => {
                self.stderr.read(&self.exec, stderr_room, &mut self.scratch);
            }
            PumpAction::Write => self.write(),
            PumpAction::Look => {}
        }
    }

    fn write(&mut self) {
        let Some(pipe) = &self.stdin else { return };
        let mut state = self.exec.state();
        if state.input.is_empty() {
            // The input has ended: this function is called only for input or for its end.
            if !self.terminal {
                let is_socket = pipe.shut_down();
                self.ended_stdin = self.stdin.take().filter(|_| is_socket);
            } else if self.end_terminal_input(pipe) {
                self.stdin = None;
            }
            return;
        }
        let waiting = state.input.waiting();
        match pipe.write(waiting) {
            Ok(0) => return,
            Ok(len) => {
                let last = len
                    .checked_sub(1 + waiting.0.len())
                    .map_or_else(|| waiting.0.get(len - 1), |at| waiting.1.get(at));
                self.mid_line = last != Some(&b'\n');
                state.input.take(len);
            }
            Err(_) => {
                state.input.refuse();
                self.stdin = None;
            }
        }
        drop(state);
        self.exec.news.send_replace(());
    }

    /// Writes the end-of-input character. Returns false if there was no room for it.
    fn end_terminal_input(&self, pipe: &PipeEnd) -> bool {
        let end = [pipe.end_of_input(); 2];
        let times = if self.mid_line { 2 } else { 1 };
        !matches!(pipe.write((&end[..times], &[])), Ok(0))
    }
}

impl OutputSource {
    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    async fn readable(&self) {
        if let Some(pipe) = &self.pipe {
            pipe.readable().await;
        }
    }

    fn note_owed(&mut self) {
        self.owed = self.pipe.as_ref().map_or(0, PipeEnd::waiting);
    }

    fn still_owes(&mut self) -> bool {
        self.owed = self.owed.min(self.pipe.as_ref().map_or(0, PipeEnd::waiting));
        self.owed > 0
    }

    fn read(&mut self, exec: &Exec, room: usize, scratch: &mut ReadBuffer) {
        let Some(pipe) = &self.pipe else { return };
        if scratch.is_empty() {
            *scratch = Box::new_uninit_slice(READ_LEN);
        }
        match pipe.read(&mut scratch[..room.min(READ_LEN)]) {
            ReadOutcome::Bytes(bytes) => {
                self.owed = self.owed.saturating_sub(bytes.len() as u64);
                exec.wrote(self.stream, bytes);
            }
            ReadOutcome::Nothing => {}
            ReadOutcome::End => {
                self.owed = 0;
                self.pipe = None;
            }
        }
    }
}

async fn writable(pipe: Option<&PipeEnd>) {
    if let Some(pipe) = pipe {
        pipe.writable().await;
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ring::CAPACITY;
    use minions_proto::message::{ExecStart, Role};
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::future::poll_fn;
    use std::task::Poll;

    #[tokio::test(start_paused = true)]
    async fn draining_does_not_wait_for_bytes_that_another_process_has_read() {
        let exec = Arc::new(Exec::new("shared-pipe".parse().unwrap(), 1, &ExecStart::default()));
        let (_, client) = exec.attach(Role::Control, None, None, true).unwrap();
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let other_reader = ours.try_clone().unwrap();
        rustix::io::write(&theirs, b"data").unwrap();
        // The ring is full until the client acknowledges its output, so the pump does not read.
        exec.wrote(OutputStream::Stdout, &vec![0; CAPACITY]);
        let mut pump = StreamPump::new(Arc::clone(&exec), None, PipeEnd::new(ours).unwrap(), None);
        let mut drained = Box::pin(pump.drain());
        poll_fn(|context| {
            assert!(drained.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(rustix::io::read(&other_reader, &mut [0; 8]).unwrap(), 4);
        let holder = exec.state().holder();
        exec.acknowledge(holder, CAPACITY as u64, 0);
        timeout(100 * DRAIN, drained).await.expect("the drain ends");
        drop((client, theirs));
    }
}
