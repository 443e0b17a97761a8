//! Exec stream of a program on an SSH channel.
//!
//! The program's output waits for the client's window, and the client's input for the program's window, independently
//! of each other: a program that does not read its input does not stop its own output.

use super::channel_output::{ChannelOutput, ProgramEnd};
use super::input::{ChannelInput, InputEvent};
use crate::failure::Failure;
use crate::link::ExecLink;
use crate::link_error::LinkError;
use crate::session::{ReattachTimer, SILENCE};
use bytes::Bytes;
use minions_api::exec::AttachRequest;
use minions_proto::ErrorCode as AgentCode;
use minions_proto::channel::{ChannelMessage, HostControl, OutputStream};
use minions_proto::exec_client::{ExecClient, StreamEvent};
use minions_proto::message::{ExecAttached, Outcome};
use std::collections::VecDeque;
use std::pin::Pin;
use tokio::time::{Instant, timeout_at};

/// Maximum number of control messages that are kept until the stream takes them; further ones are dropped.
const MAX_CONTROLS: usize = 64;

type PendingWrite<'a> = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send + 'a>>;

/// State of the exec stream.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    /// `None` until the first reply.
    client: Option<ExecClient>,
    controls: VecDeque<HostControl>,
    /// Number of bytes of output that were lost.
    lost: u64,
}

/// End of one stream.
pub(super) enum StreamEnd {
    Program(ProgramEnd),
    ClientLeft,
    Lost(LinkError),
}

impl StreamState {
    /// Returns the request that re-attaches to the program; `None` before the first reply. It carries the offsets, so
    /// queued acks are dropped.
    pub(super) fn reattach(&mut self) -> Option<AttachRequest> {
        let client = self.client.as_ref()?;
        self.controls.retain(|control| !matches!(control, HostControl::Ack { .. }));
        Some(AttachRequest {
            attach: client.id().to_string(),
            stdout_offset: Some(client.received(OutputStream::Stdout)),
            stderr_offset: Some(client.received(OutputStream::Stderr)),
        })
    }

    /// Continues with a stream that was opened or re-attached.
    pub(super) fn adopt(&mut self, attached: &ExecAttached) -> Result<(), Failure> {
        match &mut self.client {
            Some(client) => client.resume(attached)?,
            None => self.client = Some(ExecClient::new(attached, Instant::now().into_std())?),
        }
        Ok(())
    }

    /// Moves messages both ways until the stream ends.
    pub(super) async fn converse(
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
        // The first ack tells minionsd to leave acks to minionsctl, which acknowledges output once the SSH client had
        // room for it.
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
                    // While a write was pending, nothing was received: the time of silence starts again.
                    heard = Instant::now();
                    self.acknowledge(false);
                }
                message = timeout_at(heard + SILENCE, link.receive()), if writing.is_none() => {
                    heard = Instant::now();
                    match self.received(message.unwrap_or(Err(LinkError::Silent)), retry)? {
                        ReceivedMeaning::Nothing => {}
                        ReceivedMeaning::Output(stream, bytes) => {
                            writing = Some(Box::pin(output.send(stream, bytes)));
                        }
                        ReceivedMeaning::End(end) => return Ok(end),
                    }
                }
                permit = outgoing.reserve(), if open && self.has_messages() => {
                    match (permit, self.next_message()) {
                        (Ok(permit), Some(message)) => permit.send(message),
                        (Ok(_), None) => {}
                        // Reading reports the reason, after the messages that have already arrived.
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

    fn received(
        &mut self,
        message: Result<ChannelMessage, LinkError>,
        retry: &mut ReattachTimer,
    ) -> Result<ReceivedMeaning, Failure> {
        let message = match message {
            Ok(message) => message,
            Err(why) => return Ok(ReceivedMeaning::End(StreamEnd::Lost(why))),
        };
        retry.succeeded();
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
            StreamEvent::Ended(ended) => {
                ReceivedMeaning::End(StreamEnd::Program(self.end(&ended.outcome)))
            }
            StreamEvent::Refused(error) if error.code == Some(AgentCode::TakenOver) => {
                return Err(Failure::TakenOver(error));
            }
            // SSH has no message for the reason why a signal or a size was refused.
            StreamEvent::Refused(_) => ReceivedMeaning::Nothing,
        })
    }

    fn end(&self, outcome: &Outcome) -> ProgramEnd {
        match ProgramEnd::of(outcome) {
            // Incomplete output must not be reported as a success.
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
    pub(super) fn control(&mut self, event: InputEvent) -> bool {
        let control = match event {
            InputEvent::Signal(signal) => HostControl::Signal { signal },
            InputEvent::Resized { rows, cols } => {
                self.controls.retain(|control| !matches!(control, HostControl::Resize { .. }));
                HostControl::Resize { rows, cols }
            }
            InputEvent::Closed => return false,
            // Input is taken only while there is a stream.
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
    Output(OutputStream, Bytes),
    End(StreamEnd),
}

/// Waits for the write, if there is one. Cancel safe.
async fn finished(writing: &mut Option<PendingWrite<'_>>) -> Result<(), russh::Error> {
    match writing {
        Some(writing) => writing.await,
        None => Ok(()),
    }
}
