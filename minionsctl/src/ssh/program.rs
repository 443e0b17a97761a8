//! A program on a channel: its exec stream, which is re-attached when it breaks.
//!
//! Data of the program wait for the client's window, and data of the client for the program's, each without the other:
//! a program that does not read cannot stop its own output.

use super::channel_output::{ChannelOutput, ProgramEnd};
use super::input::{ChannelInput, InputEvent};
use crate::failure::Failure;
use crate::link::{self, ExecLink, FirstMessage};
use crate::link_error::LinkError;
use crate::output::failure_line;
use crate::session::{ReattachTimer, SILENCE};
use crate::target::Target;
use minions_api::exec::AttachRequest;
use minions_proto::channel::{ChannelMessage, HostControl, OutputStream};
use minions_proto::exec_client::{ExecClient, StreamEvent};
use minions_proto::message::{ExecAttached, Outcome, REATTACH_GRACE};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Control messages that are kept until the stream takes them; further ones are dropped.
const MAX_CONTROLS: usize = 64;

type PendingWrite<'a> = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send + 'a>>;

/// Program on a channel.
#[derive(Debug)]
pub(super) struct ChannelProgram {
    target: Arc<Target>,
    opening: FirstMessage,
    input: Arc<ChannelInput>,
    output: ChannelOutput,
    stream: StreamState,
    retry: ReattachTimer,
}

/// State of the exec stream.
#[derive(Debug, Default)]
struct StreamState {
    /// `None` until the first reply.
    client: Option<ExecClient>,
    controls: VecDeque<HostControl>,
    /// Bytes of output that are lost.
    lost: u64,
}

/// End of one stream.
enum StreamEnd {
    Program(ProgramEnd),
    ClientLeft,
    Lost(LinkError),
}

impl ChannelProgram {
    pub(super) fn new(
        target: Arc<Target>,
        opening: FirstMessage,
        input: Arc<ChannelInput>,
        output: ChannelOutput,
    ) -> Self {
        let retry = ReattachTimer::new(REATTACH_GRACE);
        Self { target, opening, input, output, stream: StreamState::default(), retry }
    }

    /// Runs the program until it ends or the client leaves, and closes the channel.
    pub(super) async fn run(mut self) {
        let end = match self.run_streams().await {
            Ok(None) => return,
            Ok(Some(end)) => end,
            Err(failure) => failed(&failure),
        };
        self.input.discard();
        tokio::select! {
            // An error means that the connection has ended.
            _ = self.output.finish(end) => {}
            () = self.input.closed() => {}
        }
    }

    /// Returns the end of the program; `None` if the client has left.
    async fn run_streams(&mut self) -> Result<Option<ProgramEnd>, Failure> {
        loop {
            let Some((attached, mut link)) = self.connect().await? else { return Ok(None) };
            self.stream.adopt(&attached)?;
            let Self { stream, input, output, retry, .. } = self;
            match stream.converse(&mut link, input, output, retry).await? {
                StreamEnd::Program(end) => return Ok(Some(end)),
                StreamEnd::ClientLeft => {
                    link.leave().await;
                    return Ok(None);
                }
                StreamEnd::Lost(why) => self.lost(why)?,
            }
        }
    }

    /// Opens the stream; `None` if the client has left meanwhile.
    async fn connect(&mut self) -> Result<Option<(ExecAttached, ExecLink)>, Failure> {
        let Self { target, opening, retry, input, stream, .. } = self;
        let opened = open(target, opening, retry);
        tokio::pin!(opened);
        loop {
            let event = tokio::select! {
                opened = &mut opened => return opened.map(Some),
                event = input.next_control() => event,
            };
            if !stream.control(event) {
                return Ok(None);
            }
        }
    }

    /// Prepares to re-attach.
    fn lost(&mut self, why: LinkError) -> Result<(), Failure> {
        let Some(client) = self.stream.client.as_ref().filter(|_| why.is_transient()) else {
            return Err(Failure::Link(why));
        };
        self.opening = FirstMessage::Attach(AttachRequest {
            attach: client.id().to_string(),
            stdout_offset: Some(client.received(OutputStream::Stdout)),
            stderr_offset: Some(client.received(OutputStream::Stderr)),
        });
        // The request carries the offsets.
        let is_ack = |control: &HostControl| matches!(control, HostControl::Ack { .. });
        self.stream.controls.retain(|control| !is_ack(control));
        self.retry.failed(Failure::Link(why));
        Ok(())
    }
}

/// Opens the stream for the first time or after a loss, with retries.
async fn open(
    target: &Target,
    opening: &FirstMessage,
    retry: &mut ReattachTimer,
) -> Result<(ExecAttached, ExecLink), Failure> {
    loop {
        retry.pause().await?;
        let opened = match retry.deadline() {
            None => link::open(target, opening).await,
            Some(deadline) => match timeout_at(deadline, link::open(target, opening)).await {
                Ok(opened) => opened,
                Err(_) => return Err(retry.give_up()),
            },
        };
        let failure = match opened {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        // The id of the request prevents a second start.
        match (retry.is_on(), opening) {
            (true, _) if failure.is_transient() => retry.failed(failure),
            (false, _) if failure.may_have_started() => retry.failed(failure),
            (true, FirstMessage::Attach(_)) => return Err(Failure::NoWayBack(Box::new(failure))),
            (true, FirstMessage::Start(_)) | (false, _) => return Err(failure),
        }
    }
}

impl StreamState {
    fn adopt(&mut self, attached: &ExecAttached) -> Result<(), Failure> {
        match &mut self.client {
            Some(client) => client.resume(attached)?,
            None => self.client = Some(ExecClient::new(attached, Instant::now().into_std())?),
        }
        Ok(())
    }

    /// Moves messages both ways until the stream ends.
    async fn converse(
        &mut self,
        link: &mut ExecLink,
        input: &ChannelInput,
        output: &ChannelOutput,
        retry: &mut ReattachTimer,
    ) -> Result<StreamEnd, Failure> {
        let outgoing = link.outgoing();
        let mut heard = Instant::now();
        let mut open = true;
        let mut writing: Option<PendingWrite<'_>> = None;
        // Declares that this client acknowledges output itself, after the SSH client had room for it.
        self.controls.extend(self.client.as_ref().map(ExecClient::offsets));
        loop {
            let room = self.client.as_ref().map_or(0, ExecClient::input_room);
            tokio::select! {
                event = input.next(room) => if !self.happened(event) {
                    return Ok(StreamEnd::ClientLeft);
                },
                written = finished(&mut writing), if writing.is_some() => {
                    writing = None;
                    if written.is_err() {
                        return Ok(StreamEnd::ClientLeft);
                    }
                    // Nothing was received meanwhile.
                    heard = Instant::now();
                    self.acknowledge(false);
                }
                message = timeout_at(heard + SILENCE, link.receive()), if writing.is_none() => {
                    heard = Instant::now();
                    let message = match message.unwrap_or(Err(LinkError::Silent)) {
                        Ok(message) => message,
                        Err(why) => return Ok(StreamEnd::Lost(why)),
                    };
                    retry.succeeded();
                    match self.received(message)? {
                        ReceivedMeaning::Nothing => {}
                        ReceivedMeaning::Output(stream, bytes) => {
                            writing = Some(Box::pin(output.send(stream, bytes)));
                        }
                        ReceivedMeaning::End(end) => return Ok(StreamEnd::Program(end)),
                    }
                }
                permit = outgoing.reserve(), if open && self.has_messages() => {
                    match (permit, self.next_message()) {
                        (Ok(permit), Some(message)) => permit.send(message),
                        (Ok(_), None) => {}
                        // The reader reports the reason, after the messages that have arrived.
                        (Err(_), _) => open = false,
                    }
                }
            }
        }
    }

    fn has_messages(&self) -> bool {
        !self.controls.is_empty() || self.client.as_ref().is_some_and(ExecClient::has_input)
    }

    fn next_message(&mut self) -> Option<ChannelMessage> {
        match self.controls.pop_front() {
            Some(control) => Some(ChannelMessage::host(&control)),
            None => self.client.as_mut()?.next_input(),
        }
    }

    fn acknowledge(&mut self, now: bool) {
        self.controls.extend(self.client.as_mut().and_then(|client| client.ack(now)));
    }

    fn received(&mut self, message: ChannelMessage) -> Result<ReceivedMeaning, Failure> {
        let Some(client) = &mut self.client else { return Ok(ReceivedMeaning::Nothing) };
        Ok(match client.receive(message, Instant::now().into_std())? {
            StreamEvent::Output(stream, bytes) => ReceivedMeaning::Output(stream, bytes),
            StreamEvent::Gap(_, bytes) => {
                self.lost += bytes;
                ReceivedMeaning::Nothing
            }
            StreamEvent::InputTaken => ReceivedMeaning::Nothing,
            StreamEvent::Heartbeat => {
                self.acknowledge(true);
                ReceivedMeaning::Nothing
            }
            StreamEvent::Ended(ended) => ReceivedMeaning::End(self.end(&ended.outcome)),
            StreamEvent::Refused(error) => return Err(Failure::TakenOver(error)),
        })
    }

    fn end(&self, outcome: &Outcome) -> ProgramEnd {
        match ProgramEnd::of(outcome) {
            // Incomplete output must not look like success.
            ProgramEnd::Exited(0) if self.lost > 0 => {
                ProgramEnd::failed(format!("{} bytes of the program's output are lost", self.lost))
            }
            end => end,
        }
    }

    /// Processes an event of the SSH client. Returns false if the client has left.
    fn happened(&mut self, event: InputEvent) -> bool {
        match (event, &mut self.client) {
            (InputEvent::Bytes(bytes), Some(client)) => client.push_input(bytes),
            (InputEvent::End, Some(client)) => client.close_input(),
            (event, _) => return self.control(event),
        }
        true
    }

    /// Queues the control message for an event. Returns false if the client has left.
    fn control(&mut self, event: InputEvent) -> bool {
        let control = match event {
            InputEvent::Signal(signal) => HostControl::Signal { signal },
            InputEvent::Resized { rows, cols } => {
                self.controls.retain(|control| !matches!(control, HostControl::Resize { .. }));
                HostControl::Resize { rows, cols }
            }
            InputEvent::Closed => return false,
            // Input is only taken while there is a stream.
            InputEvent::Bytes(_) | InputEvent::End => return true,
        };
        if self.controls.len() < MAX_CONTROLS {
            self.controls.push_back(control);
        }
        true
    }
}

/// Meaning of a message.
enum ReceivedMeaning {
    Nothing,
    Output(OutputStream, bytes::Bytes),
    End(ProgramEnd),
}

/// Waits for the write, if there is one. Cancel safe.
async fn finished(writing: &mut Option<PendingWrite<'_>>) -> Result<(), russh::Error> {
    match writing {
        Some(writing) => writing.await,
        None => Ok(()),
    }
}

/// Converts a failure. A shell that is missing or cannot be executed has the exit status that shells use for this.
fn failed(failure: &Failure) -> ProgramEnd {
    let status = match failure.exit_status(true).code() {
        status @ (126 | 127) => Some(status.into()),
        _ => None,
    };
    ProgramEnd::Failed { message: failure_line(failure), status }
}
