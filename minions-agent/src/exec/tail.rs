//! Position of one stream in an exec, and the messages that are due on it.

use super::error::ExecRefusal;
use super::exec_state::ExecState;
use super::object::Exec;
use bytes::BytesMut;
use minions_proto::channel::{CHUNK_LEN, Ended, HostControl, OutputStream};
use minions_proto::message::{ExecAttached, ExecId};
use std::sync::Arc;
use tokio::sync::watch;

/// Bytes of input that the program takes until the next ack is due.
const ACK_AFTER: u64 = 64 * 1024;

const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

/// Next event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TailEvent {
    /// Output: the number of bytes that were appended to the buffer.
    Output(OutputStream, usize),
    /// Output that was dropped before this stream had read it.
    Gap { stream: OutputStream, from: u64, to: u64 },
    /// The program has taken its input up to this offset.
    InputTaken(u64),
    /// The program has ended, and all of its output has been read.
    Ended(Ended),
    /// All output that existed when the snapshot began has been read.
    Complete,
    /// Another stream has become the client's.
    TakenOver,
    /// A later generation of the guest has inherited the program, under this id.
    Inherited(ExecId),
}

/// Position of a stream in an exec. Dropping the client's tail counts as a broken connection.
#[derive(Debug)]
pub(crate) struct ExecTail {
    exec: Arc<Exec>,
    news: watch::Receiver<()>,
    /// Offsets of the next bytes to read, of standard output and of standard error.
    next: [u64; 2],
    /// Index of the output that is checked first: they take turns.
    turn: usize,
    /// Number of the attachment, if this stream is the client's.
    holder: Option<u64>,
    /// End offsets of a snapshot.
    until: Option<[u64; 2]>,
    input_acked: u64,
    /// Id of the exec when the stream was opened.
    id: ExecId,
}

impl ExecTail {
    pub(super) fn new(
        exec: Arc<Exec>,
        next: [u64; 2],
        holder: Option<u64>,
        until: Option<[u64; 2]>,
        attached: &ExecAttached,
    ) -> Self {
        let news = exec.news.subscribe();
        let (id, input_acked) = (attached.id.clone(), attached.stdin_acked);
        Self { exec, news, next, turn: 0, holder, until, input_acked, id }
    }

    /// Waits for the next event. Output is appended to `buffer`.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self, buffer: &mut BytesMut) -> TailEvent {
        loop {
            self.news.borrow_and_update();
            if let Some(piece) = self.look(buffer) {
                return piece;
            }
            // The sender lives as long as the exec, which this value holds.
            let _ = self.news.changed().await;
        }
    }

    fn look(&mut self, buffer: &mut BytesMut) -> Option<TailEvent> {
        let exec = Arc::clone(&self.exec);
        let state = exec.state();
        if let Some(id) = state.inherited_as.as_ref().filter(|id| **id != self.id) {
            return Some(TailEvent::Inherited(id.clone()));
        }
        if self.holder.is_some_and(|holder| holder != state.holder()) {
            return Some(TailEvent::TakenOver);
        }
        for turn in [self.turn, 1 - self.turn] {
            if let Some(piece) = self.output(&state, turn, buffer) {
                self.turn = 1 - turn;
                return Some(piece);
            }
        }
        if let Some(piece) = self.input(&state) {
            return Some(piece);
        }
        let complete =
            |until: &[u64; 2]| self.next.iter().zip(until).all(|(next, end)| next >= end);
        match (state.ended(), &self.until) {
            (Some(ended), _) => Some(TailEvent::Ended(ended.clone())),
            (None, Some(until)) if complete(until) => Some(TailEvent::Complete),
            (None, _) => None,
        }
    }

    fn output(
        &mut self,
        state: &ExecState,
        turn: usize,
        buffer: &mut BytesMut,
    ) -> Option<TailEvent> {
        let (stream, next) = (STREAMS[turn], &mut self.next[turn]);
        let ring = state.ring(stream);
        let limit = self.until.map_or(u64::MAX, |until| until[turn]);
        if *next >= ring.end().min(limit) {
            return None;
        }
        if *next < ring.start() {
            let from = std::mem::replace(next, ring.start());
            return Some(TailEvent::Gap { stream, from, to: *next });
        }
        let most = usize::try_from(limit - *next).unwrap_or(CHUNK_LEN).min(CHUNK_LEN);
        let len = ring.copy(*next, most, buffer);
        *next += len as u64;
        Some(TailEvent::Output(stream, len))
    }

    fn input(&mut self, state: &ExecState) -> Option<TailEvent> {
        self.holder?;
        let taken = state.input.taken();
        let due = taken - self.input_acked >= ACK_AFTER || state.input.is_empty();
        if taken == self.input_acked || !due {
            return None;
        }
        self.input_acked = taken;
        Some(TailEvent::InputTaken(taken))
    }

    /// Returns the host's direction of the stream, for use while [`next`](Self::next) waits.
    pub(crate) fn handle(&self) -> ClientHandle {
        ClientHandle { exec: Arc::clone(&self.exec), holder: self.holder }
    }
}

/// The host's direction of a stream. Only the client's stream has an effect on the program.
#[derive(Debug)]
pub(crate) struct ClientHandle {
    exec: Arc<Exec>,
    holder: Option<u64>,
}

impl ClientHandle {
    /// Carries out a message of the control channel.
    pub(crate) fn control(&self, control: HostControl) -> Result<(), ExecRefusal> {
        let Some(holder) = self.holder.filter(|holder| self.exec.is_held_by(*holder)) else {
            return Ok(());
        };
        match control {
            HostControl::Resize { rows, cols } => self.exec.resize(rows, cols),
            HostControl::Signal { signal } => self.exec.signal(signal)?,
            HostControl::Ack { stdout, stderr } => self.exec.acknowledge(holder, stdout, stderr),
            HostControl::Leave => self.exec.detach(holder, true),
            HostControl::Unknown => {}
        }
        Ok(())
    }

    /// Passes input on to the program; an empty slice ends the input.
    pub(crate) fn input(&self, bytes: &[u8]) -> Result<(), ExecRefusal> {
        self.holder.map_or(Ok(()), |holder| self.exec.push_input(holder, bytes))
    }
}

impl Drop for ExecTail {
    fn drop(&mut self) {
        if let Some(holder) = self.holder {
            self.exec.detach(holder, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::{ExecStart, Role, Signal};

    #[tokio::test]
    async fn a_stream_that_was_taken_over_has_no_effect_any_more() {
        let exec = Arc::new(Exec::new("taken".parse().unwrap(), 1, &ExecStart::default()));
        let attach = || exec.attach(Role::Control, None, None, false).unwrap().1;
        let (first, second) = (attach(), attach());
        let (stale, client) = (first.handle(), second.handle());
        let control = |handle: &ClientHandle| {
            handle.control(HostControl::Resize { rows: 1, cols: 1 }).unwrap();
            let signal = Signal::from_number(15).unwrap();
            handle.control(HostControl::Signal { signal }).unwrap();
            let orders = exec.take_orders();
            (orders.size, orders.signals.len())
        };
        assert_eq!(control(&stale), (None, 0));
        assert_eq!(control(&client), (Some((1, 1)), 1));
    }
}
