//! Reads a program's output exactly once, re-attaching after a lost connection.

use super::hold::Hold;
use super::{Execs, Place, opening};
use crate::agent::{AgentStream, Broken, CallError, StreamTurns};
use bytes::{Buf, Bytes};
use minions_proto::channel::{CHUNK_LEN, Ended, Message, OutputStream};
use minions_proto::connection::ProtocolError;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::exec_client::{Event, ExecClient, StreamError};
use minions_proto::message::{ExecAttach, ExecAttached, ExecStart, Role};
use tokio::time::Instant;

/// Number of input bytes that are queued on a stream before its socket has taken them.
const WRITE_AHEAD: usize = 2 * CHUNK_LEN;

/// An event of a program.
#[derive(Debug)]
pub(crate) enum Happened {
    /// Output of the program, starting at this offset.
    Output(OutputStream, u64, Bytes),
    /// Output from the first offset up to the second, which is lost.
    Gap(OutputStream, u64, u64),
    /// Sign of life of the agent, without output.
    Heartbeat,
    /// End of the program.
    Ended(Ended),
    /// End of a snapshot ([`Role::Snapshot`]): all output so far has been returned.
    Told,
}

/// Follows one program. After a lost connection it re-attaches automatically. Dropping it leaves the program, unless it
/// only watches.
#[derive(Debug)]
pub(crate) struct Driver {
    hold: Hold,
    exec: ExecClient,
    attached: ExecAttached,
    role: Role,
    /// Input that was not passed to `exec` yet; `None` without input, and when all of it was passed.
    input: Option<Bytes>,
    /// The caller has processed all events so far, and this should be acknowledged now.
    settled: bool,
    /// Writing to the stream failed. Its remaining messages are still read.
    mute: bool,
    broken_at: Option<Instant>,
    /// Offsets that both outputs must reach before the end of the stream is the end of a snapshot.
    extent: (u64, u64),
}

impl Driver {
    /// Starts a program, or attaches to the program with the same id, which must be given. `input` is the program's
    /// standard input.
    ///
    /// # Errors
    ///
    /// As [`opening::start`].
    pub(crate) async fn start(
        execs: &Execs,
        place: &Place,
        start: &ExecStart,
        input: Option<Bytes>,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let id = start.id.clone().ok_or(CallError::Lost { sent: false })?;
        let mut hold = Hold::of(execs.clone(), place.clone(), id);
        match opening::start(place, start, deadline).await {
            Ok(opened) => Self::new(hold, opened, Role::Control, input),
            Err(error) => {
                if !error.may_have_executed() {
                    hold.release();
                }
                Err(error)
            }
        }
    }

    /// Watches a program, or reads a snapshot of its output, without any effect on the program. A snapshot is complete
    /// with `extent` bytes of its two outputs.
    ///
    /// # Errors
    ///
    /// As [`opening::attach`].
    pub(crate) async fn watch(
        execs: &Execs,
        place: &Place,
        attach: &ExecAttach,
        extent: (u64, u64),
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let mut hold = Hold::of(execs.clone(), place.clone(), attach.id.clone());
        hold.release();
        let opened = opening::attach(place, attach, deadline).await?;
        begins_where_asked(attach, &opened.0).map_err(CallError::Stream)?;
        Ok(Self { extent, ..Self::new(hold, opened, attach.role, None)? })
    }

    fn new(
        mut hold: Hold,
        (attached, stream): (ExecAttached, AgentStream),
        role: Role,
        mut input: Option<Bytes>,
    ) -> Result<Self, CallError> {
        hold.stream = Some(stream);
        if let Some(input) = &mut input {
            // An earlier request with the same id has already sent this part of the input.
            input.advance(usize::try_from(attached.stdin).unwrap_or(usize::MAX).min(input.len()));
        }
        let now = Instant::now().into_std();
        let exec = ExecClient::new(&attached, now).map_err(CallError::Stream)?;
        Ok(Self {
            hold,
            exec,
            attached,
            role,
            input,
            settled: false,
            mute: false,
            broken_at: None,
            extent: (0, 0),
        })
    }

    /// Returns the VM's turns, in which the program's stream is processed.
    pub(crate) fn turns(&self) -> StreamTurns {
        self.hold.place().vm.turns().clone()
    }

    /// Returns the agent's reply on the first stream.
    pub(crate) fn attached(&self) -> &ExecAttached {
        &self.attached
    }

    /// Sends all input to the program, and discards its output. Returns when the last input is queued; the `leave` that
    /// follows on drop is queued after it.
    pub(crate) async fn give_input(mut self) {
        self.queue_messages();
        while self.input.is_some() || self.exec.has_input() {
            match self.next().await {
                Ok(Happened::Ended(_)) | Err(_) => return,
                Ok(_) => self.queue_messages(),
            }
        }
    }

    /// Returns the next event. The call confirms that the caller has processed all earlier events; this is acknowledged
    /// to the agent, which can then send more.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// The program is lost, or was taken over by another client. No event follows an error.
    pub(crate) async fn next(&mut self) -> Result<Happened, CallError> {
        loop {
            if self.hold.stream.is_none() {
                self.come_back().await?;
            }
            match self.message().await {
                Ok(message) => {
                    if let Some(happened) = self.receive(message)? {
                        return Ok(happened);
                    }
                }
                Err(Broken::Closed) if self.is_snapshot_complete() => return Ok(Happened::Told),
                Err(broken) if broken.is_breach() => return Err(breach(broken)),
                Err(_) => {
                    self.hold.stream = None;
                    self.broken_at = Some(Instant::now());
                }
            }
        }
    }

    fn is_snapshot_complete(&self) -> bool {
        let received = |stream| self.exec.received(stream);
        self.role == Role::Snapshot
            && received(OutputStream::Stdout) >= self.extent.0
            && received(OutputStream::Stderr) >= self.extent.1
    }

    fn receive(&mut self, message: Message) -> Result<Option<Happened>, CallError> {
        let offsets = [OutputStream::Stdout, OutputStream::Stderr]
            .map(|stream| (stream, self.exec.received(stream)));
        let before = |stream| offsets.iter().find(|(s, _)| *s == stream).map_or(0, |(_, at)| *at);
        let now = Instant::now().into_std();
        Ok(match self.exec.receive(message, now).map_err(CallError::Stream)? {
            Event::Output(stream, bytes) => Some(Happened::Output(stream, before(stream), bytes)),
            Event::Gap(stream, len) => {
                Some(Happened::Gap(stream, before(stream), before(stream) + len))
            }
            Event::Heartbeat => {
                self.settled = true;
                Some(Happened::Heartbeat)
            }
            Event::Ended(ended) => {
                self.hold.release();
                Some(Happened::Ended(ended))
            }
            Event::Refused(error) if error.code == Some(AgentCode::TakenOver) => {
                // Another client has the program from now on.
                self.hold.release();
                return Err(CallError::Agent(error));
            }
            // There is room for more input; or the agent refused a control message, which has no effect on the
            // program.
            Event::InputTaken | Event::Refused(_) => None,
        })
    }

    /// Returns the agent's next message. Meanwhile, sends acks and input.
    async fn message(&mut self) -> Result<Message, Broken> {
        loop {
            self.queue_messages();
            let stream = self.hold.stream.as_mut().ok_or(Broken::Closed)?;
            let AgentStream { reader, writer, .. } = stream;
            let writes = !self.mute && writer.pending() > 0;
            tokio::select! {
                message = reader.next() => return message,
                // After a failed write, the agent's last messages may still be in the socket.
                written = writer.flush(), if writes => self.mute = written.is_err(),
            }
        }
    }

    /// Queues acks, and input up to [`WRITE_AHEAD`].
    fn queue_messages(&mut self) {
        let Some(stream) = self.hold.stream.as_mut() else { return };
        if self.role != Role::Control {
            return;
        }
        if let Some(ack) = self.exec.ack(std::mem::take(&mut self.settled)) {
            stream.writer.queue(&Message::host(&ack));
        }
        while stream.writer.pending() < WRITE_AHEAD {
            if let Some(input) = &mut self.input {
                self.exec.push_input(input.split_to(self.exec.input_room().min(input.len())));
                if input.is_empty() {
                    self.exec.close_input();
                    self.input = None;
                }
            }
            let Some(message) = self.exec.next_input() else { return };
            stream.writer.queue(&message);
        }
    }

    async fn come_back(&mut self) -> Result<(), CallError> {
        let since = self.broken_at.unwrap_or_else(Instant::now);
        let attach = ExecAttach { role: self.role, ..self.exec.attach() };
        let (attached, stream) = opening::come_back(self.hold.place(), &attach, since).await?;
        self.exec.resume(&attached).map_err(CallError::Stream)?;
        self.hold.stream = Some(stream);
        self.mute = false;
        Ok(())
    }
}

/// Checks that the stream does not start before the requested offsets. It may start after them, if the agent no longer
/// keeps that output.
fn begins_where_asked(attach: &ExecAttach, attached: &ExecAttached) -> Result<(), StreamError> {
    for (what, theirs, asked) in
        [("stdout", attached.stdout, attach.stdout), ("stderr", attached.stderr, attach.stderr)]
    {
        match asked {
            Some(ours) if theirs < ours => return Err(StreamError::Offset { what, theirs, ours }),
            _ => {}
        }
    }
    Ok(())
}

fn breach(broken: Broken) -> CallError {
    match broken {
        Broken::Frame(error) => CallError::Protocol(ProtocolError::Frame(error)),
        Broken::Channel(error) => CallError::Stream(StreamError::Channel(error)),
        Broken::Stream(error) => CallError::Stream(error),
        Broken::Closed | Broken::Lost(_) | Broken::Silent | Broken::Replaced | Broken::NoRoom => {
            CallError::Lost { sent: true }
        }
    }
}
