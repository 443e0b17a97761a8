//! Reads a program's output exactly once, re-attaching after a lost connection.

use super::error::ExecError;
use super::lease::ExecLease;
use super::opening::{self, OpenedStream};
use super::plan::{ExecFollower, ExecPlan};
use super::resources::ExecResources;
use super::target::ExecTarget;
use crate::agent::{AgentRefusal, AgentStream, StreamEnd, StreamTurns, TransportError};
use bytes::{Buf, Bytes};
use minions_proto::Call;
use minions_proto::channel::{CHUNK_LEN, ChannelMessage, Ended, OutputStream};
use minions_proto::connection::ProtocolError;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::exec_client::{ExecClient, StreamError, StreamEvent};
use minions_proto::message::{ExecAttach, ExecAttached, ExecId, Role};
use tokio::time::Instant;

/// Number of input bytes that are queued on a stream before its socket has taken them.
const WRITE_AHEAD: usize = 2 * CHUNK_LEN;

/// An event of a program.
#[derive(Debug)]
pub(crate) enum DriverEvent {
    /// Output of the program, starting at this offset.
    Output(OutputStream, u64, Bytes),
    /// Output from the first offset up to the second, which is lost.
    Gap(OutputStream, u64, u64),
    /// Sign of life of the agent, without output.
    Heartbeat,
    /// The program has read some of its input: there may be room for more. Only for a caller that
    /// [pushes](ExecDriver::push_input) input.
    InputTaken,
    /// End of the program.
    Ended(Ended),
    /// End of a snapshot ([`Role::Snapshot`]): all output so far has been returned.
    Told,
}

/// Follows one program. After a lost connection it re-attaches automatically. Dropping it leaves the program, unless it
/// only watches.
#[derive(Debug)]
pub(crate) struct ExecDriver {
    lease: ExecLease,
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
    /// The caller pushes input while the program runs.
    pushes: bool,
}

impl ExecDriver {
    /// Starts a program, or attaches to the program with the same id.
    ///
    /// # Errors
    ///
    /// As [`opening::start`].
    pub(super) async fn start(
        execs: &ExecResources,
        target: &ExecTarget,
        plan: &ExecPlan,
        deadline: Instant,
    ) -> Result<Self, ExecError> {
        let mut lease = ExecLease::of(execs.clone(), target.clone(), plan.id.clone());
        if plan.follower == ExecFollower::Client {
            lease.release();
        }
        match opening::start(target, &plan.start, deadline).await {
            Ok(opened) => Self::new(lease, opened, Role::Control, plan.stdin.clone()),
            Err(error) => {
                if !error.may_have_executed() {
                    lease.release();
                }
                Err(error)
            }
        }
    }

    /// Starts the program of another operation than an exec, by a request with this id. The caller pushes the program's
    /// input while it runs.
    ///
    /// # Errors
    ///
    /// As [`opening::start_call`].
    pub(crate) async fn open<C: Call<Reply = ExecAttached>>(
        execs: &ExecResources,
        target: &ExecTarget,
        id: ExecId,
        call: &C,
        deadline: Instant,
    ) -> Result<Self, ExecError> {
        let mut lease = ExecLease::of(execs.clone(), target.clone(), id);
        match opening::start_call(target, call, deadline).await {
            Ok(opened) => {
                let driver = Self::new(lease, opened, Role::Control, None)?;
                Ok(Self { pushes: true, ..driver })
            }
            Err(error) => {
                if !error.may_have_executed() {
                    lease.release();
                }
                Err(error)
            }
        }
    }

    /// Returns the number of input bytes that [`push_input`](Self::push_input) accepts now.
    pub(crate) fn input_room(&self) -> usize {
        self.exec.input_room()
    }

    /// Adds input, at most [`input_room`](Self::input_room) bytes. It is sent while the caller waits for the next event.
    pub(crate) fn push_input(&mut self, bytes: Bytes) {
        self.exec.push_input(bytes);
    }

    /// Ends the input.
    pub(crate) fn close_input(&mut self) {
        self.exec.close_input();
    }

    /// Attaches to a program that may or may not exist. The caller follows the program itself
    /// ([`into_stream`](Self::into_stream)), so no `leave` is sent for it.
    ///
    /// # Errors
    ///
    /// As [`opening::attach`].
    pub(crate) async fn attach(
        execs: &ExecResources,
        target: &ExecTarget,
        attach: &ExecAttach,
        deadline: Instant,
    ) -> Result<Self, ExecError> {
        let mut lease = ExecLease::of(execs.clone(), target.clone(), attach.id.clone());
        lease.release();
        let opened = opening::attach(target, attach, deadline).await?;
        Self::new(lease, opened, attach.role, None)
    }

    /// Watches a program, or reads a snapshot of its output, without any effect on the program. A snapshot is complete
    /// with `extent` bytes of its two outputs.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    pub(crate) async fn watch(
        execs: &ExecResources,
        target: &ExecTarget,
        attach: &ExecAttach,
        extent: (u64, u64),
        deadline: Instant,
    ) -> Result<Self, ExecError> {
        let driver = Self::attach(execs, target, attach, deadline).await?;
        begins_where_asked(attach, &driver.attached)?;
        Ok(Self { extent, ..driver })
    }

    /// Returns the program's stream, for a client that follows the program itself. No `leave` is sent on drop.
    pub(crate) fn into_stream(mut self) -> Option<OpenedStream> {
        self.lease.release();
        self.lease.stream.take().map(|stream| (self.attached, stream))
    }

    fn new(
        mut lease: ExecLease,
        (attached, stream): OpenedStream,
        role: Role,
        mut input: Option<Bytes>,
    ) -> Result<Self, ExecError> {
        lease.stream = Some(stream);
        if let Some(input) = &mut input {
            // An earlier request with the same id has already sent this part of the input.
            input.advance(usize::try_from(attached.stdin).unwrap_or(usize::MAX).min(input.len()));
        }
        let now = Instant::now().into_std();
        let exec = ExecClient::new(&attached, now)?;
        Ok(Self {
            lease,
            exec,
            attached,
            role,
            input,
            settled: false,
            mute: false,
            broken_at: None,
            extent: (0, 0),
            pushes: false,
        })
    }

    /// Returns the VM's turns, in which the program's stream is processed.
    pub(crate) fn turns(&self) -> StreamTurns {
        self.lease.target().vm.turns().clone()
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
                Ok(DriverEvent::Ended(_)) | Err(_) => return,
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
    pub(crate) async fn next(&mut self) -> Result<DriverEvent, ExecError> {
        loop {
            if self.lease.stream.is_none() {
                self.come_back().await?;
            }
            match self.message().await {
                Ok(message) => {
                    if let Some(happened) = self.receive(message)? {
                        return Ok(happened);
                    }
                }
                Err(StreamEnd::Closed) if self.is_snapshot_complete() => {
                    return Ok(DriverEvent::Told);
                }
                Err(broken) if broken.is_breach() => return Err(breach(broken)),
                Err(_) => {
                    self.lease.stream = None;
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

    fn receive(&mut self, message: ChannelMessage) -> Result<Option<DriverEvent>, ExecError> {
        let offsets = [OutputStream::Stdout, OutputStream::Stderr]
            .map(|stream| (stream, self.exec.received(stream)));
        let before = |stream| offsets.iter().find(|(s, _)| *s == stream).map_or(0, |(_, at)| *at);
        let now = Instant::now().into_std();
        Ok(match self.exec.receive(message, now)? {
            StreamEvent::Output(stream, bytes) => {
                Some(DriverEvent::Output(stream, before(stream), bytes))
            }
            StreamEvent::Gap(stream, len) => {
                Some(DriverEvent::Gap(stream, before(stream), before(stream) + len))
            }
            StreamEvent::Heartbeat => {
                self.settled = true;
                Some(DriverEvent::Heartbeat)
            }
            StreamEvent::Ended(ended) => {
                self.lease.release();
                if let Some(stream) = self.lease.stream.take_if(|_| !self.mute) {
                    stream.give_back();
                }
                Some(DriverEvent::Ended(ended))
            }
            StreamEvent::Refused(error) if error.code == Some(AgentCode::TakenOver) => {
                // Another client has the program from now on.
                self.lease.release();
                return Err(AgentRefusal::Answer(error).into());
            }
            StreamEvent::InputTaken if self.pushes => Some(DriverEvent::InputTaken),
            // There is room for more input, which is sent without the caller; or the agent refused a control message,
            // which has no effect on the program.
            StreamEvent::InputTaken | StreamEvent::Refused(_) => None,
        })
    }

    /// Returns the agent's next message. Meanwhile, sends acks and input.
    async fn message(&mut self) -> Result<ChannelMessage, StreamEnd> {
        loop {
            self.queue_messages();
            let stream = self.lease.stream.as_mut().ok_or(StreamEnd::Closed)?;
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
        let Some(stream) = self.lease.stream.as_mut() else { return };
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

    async fn come_back(&mut self) -> Result<(), ExecError> {
        let since = self.broken_at.unwrap_or_else(Instant::now);
        let grace = self.attached.reattach_grace();
        let attach = ExecAttach { role: self.role, ..self.exec.attach() };
        let (attached, stream) =
            opening::come_back(self.lease.target(), &attach, since, grace).await?;
        self.exec.resume(&attached)?;
        self.lease.stream = Some(stream);
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

fn breach(broken: StreamEnd) -> ExecError {
    match broken {
        StreamEnd::Frame(error) => TransportError::Protocol(ProtocolError::Frame(error)).into(),
        StreamEnd::Channel(error) => StreamError::Channel(error).into(),
        StreamEnd::Stream(error) => error.into(),
        StreamEnd::Closed
        | StreamEnd::Lost(_)
        | StreamEnd::Silent
        | StreamEnd::Replaced
        | StreamEnd::NoRoom => TransportError::Lost { sent: true }.into(),
    }
}
