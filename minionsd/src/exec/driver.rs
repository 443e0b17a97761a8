//! What a program says, without a byte missing and none twice.

use super::hold::Hold;
use super::{Execs, Place, opening};
use crate::agent::{AgentStream, Broken, CallError, StreamTurns};
use bytes::{Buf, Bytes};
use minions_proto::channel::{CHUNK_LEN, ChannelMessage, Ended, OutputStream};
use minions_proto::connection::ProtocolError;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::exec_client::{ExecClient, StreamError, StreamEvent};
use minions_proto::message::{ExecAttach, ExecAttached, ExecStart, Role};
use tokio::time::Instant;

/// Input that is put into a stream ahead of what its socket has taken.
const WRITE_AHEAD: usize = 2 * CHUNK_LEN;

/// What a program, or its agent, did.
#[derive(Debug)]
pub(crate) enum Happened {
    /// It wrote this, from this offset on.
    Output(OutputStream, u64, Bytes),
    /// What it wrote from the first offset to the second is lost for ever.
    Gap(OutputStream, u64, u64),
    /// Nothing, but the agent is alive.
    Heartbeat,
    /// It ended.
    Ended(Ended),
    /// What was there at the moment has all been told; of a [`Role::Snapshot`] only.
    Told,
}

/// One program, followed. When its connection breaks, it comes back by itself; dropping it is leaving
/// the program, unless it only watches.
#[derive(Debug)]
pub(crate) struct Driver {
    hold: Hold,
    exec: ExecClient,
    attached: ExecAttached,
    role: Role,
    /// What is not in `exec` yet; `None` if the program's input isn't ours.
    input: Option<Bytes>,
    /// What was told is wholly dealt with, and the agent should know.
    settled: bool,
    /// The stream takes nothing any more. What it still has to say comes first.
    mute: bool,
    broken_at: Option<Instant>,
    /// How far both outputs must get before a snapshot's end is its end.
    extent: (u64, u64),
}

impl Driver {
    /// Starts a program, or attaches to the one that has this id, which must be given. `input` is what
    /// it is to read.
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

    /// Watches a program, or what it has written so far, without its noticing. A snapshot is complete
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
            // Somebody came before us, with the same request.
            input.advance(usize::try_from(attached.stdin).unwrap_or(usize::MAX).min(input.len()));
        }
        let now = Instant::now().into_std();
        let exec = ExecClient::new(&attached, now).map_err(CallError::Stream)?;
        let (settled, mute, broken_at, extent) = (false, false, None, (0, 0));
        Ok(Self { hold, exec, attached, role, input, settled, mute, broken_at, extent })
    }

    /// The turns in which whoever follows the program works.
    pub(crate) fn turns(&self) -> StreamTurns {
        self.hold.place().vm.turns().clone()
    }

    /// What the agent said to the first stream.
    pub(crate) fn attached(&self) -> &ExecAttached {
        &self.attached
    }

    /// Gives the program all of its input, and lets what it writes go by. Ends when the last of it is
    /// on its way: who leaves then leaves behind it.
    pub(crate) async fn give_input(mut self) {
        self.speak();
        while self.input.is_some() || self.exec.has_input() {
            match self.next().await {
                Ok(Happened::Ended(_)) | Err(_) => return,
                Ok(_) => self.speak(),
            }
        }
    }

    /// The next thing that happens. Whoever asks has dealt with everything before: that is what the
    /// agent is told, and what makes room for more.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// The program is lost, or never was ours. Nothing follows.
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
                Err(Broken::Closed) if self.is_told() => return Ok(Happened::Told),
                Err(broken) if broken.is_breach() => return Err(breach(broken)),
                Err(_) => {
                    self.hold.stream = None;
                    self.broken_at = Some(Instant::now());
                }
            }
        }
    }

    fn is_told(&self) -> bool {
        let received = |stream| self.exec.received(stream);
        self.role == Role::Snapshot
            && received(OutputStream::Stdout) >= self.extent.0
            && received(OutputStream::Stderr) >= self.extent.1
    }

    fn receive(&mut self, message: ChannelMessage) -> Result<Option<Happened>, CallError> {
        let offsets = [OutputStream::Stdout, OutputStream::Stderr]
            .map(|stream| (stream, self.exec.received(stream)));
        let before = |stream| offsets.iter().find(|(s, _)| *s == stream).map_or(0, |(_, at)| *at);
        let now = Instant::now().into_std();
        Ok(match self.exec.receive(message, now).map_err(CallError::Stream)? {
            StreamEvent::Output(stream, bytes) => {
                Some(Happened::Output(stream, before(stream), bytes))
            }
            StreamEvent::Gap(stream, len) => {
                Some(Happened::Gap(stream, before(stream), before(stream) + len))
            }
            StreamEvent::Heartbeat => {
                self.settled = true;
                Some(Happened::Heartbeat)
            }
            StreamEvent::Ended(ended) => {
                self.hold.release();
                Some(Happened::Ended(ended))
            }
            StreamEvent::Refused(error) if error.code == Some(AgentCode::TakenOver) => {
                // Somebody else's from now on.
                self.hold.release();
                return Err(CallError::Agent(error));
            }
            // There is room for more input; or the agent didn't like a control message, which says
            // nothing about the program.
            StreamEvent::InputTaken | StreamEvent::Refused(_) => None,
        })
    }

    /// The agent's next message. Meanwhile, says what there is to say.
    async fn message(&mut self) -> Result<ChannelMessage, Broken> {
        loop {
            self.speak();
            let stream = self.hold.stream.as_mut().ok_or(Broken::Closed)?;
            let AgentStream { reader, writer, .. } = stream;
            let speaks = !self.mute && writer.pending() > 0;
            tokio::select! {
                message = reader.next() => return message,
                // Its last words may be in the socket still.
                written = writer.flush(), if speaks => self.mute = written.is_err(),
            }
        }
    }

    /// Queues acks and input, as much as is sensible.
    fn speak(&mut self) {
        let Some(stream) = self.hold.stream.as_mut() else { return };
        if self.role != Role::Control {
            return;
        }
        if let Some(ack) = self.exec.ack(std::mem::take(&mut self.settled)) {
            stream.writer.queue(&ChannelMessage::host(&ack));
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

/// An agent skips what it no longer keeps, but never goes back.
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
