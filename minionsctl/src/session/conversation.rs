//! Exchange of messages over one stream.

use super::state::Session;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::link::ExecLink;
use crate::link_error::LinkError;
use crate::local::terminal::size;
use crate::local::{HELP, LocalEvent};
use minions_proto::ErrorCode as AgentCode;
use minions_proto::channel::{ChannelMessage, HostControl, OutputStream};
use minions_proto::exec_client::{ExecClient, StreamEvent};
use minions_proto::message::{Outcome, Signal, SignalReason};
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Silence after which a stream counts as broken: four heartbeats.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);

/// Number of SIGINT.
const INT: i32 = 2;

/// Number of SIGPIPE.
const PIPE: i32 = 13;

/// End of a stream.
pub(super) enum StreamEnd {
    /// The program ended.
    Status(ExitStatus),
    /// The user leaves, or a local failure ends the session.
    Leave(Result<ExitStatus, Failure>),
    /// The stream broke.
    Lost(LinkError),
}

impl Session<'_> {
    /// Moves messages both ways until the stream ends.
    pub(super) async fn converse(&mut self, link: &mut ExecLink) -> Result<StreamEnd, Failure> {
        let Some(mut client) = self.client.take() else {
            return Ok(StreamEnd::Lost(LinkError::Silent));
        };
        let end = self.converse_as(&mut client, link).await;
        self.client = Some(client);
        end
    }

    async fn converse_as(
        &mut self,
        client: &mut ExecClient,
        link: &mut ExecLink,
    ) -> Result<StreamEnd, Failure> {
        let mut heard = Instant::now();
        let outgoing = link.outgoing();
        let mut open = true;
        self.send_size();
        // Declares before the first output that this client acknowledges. Otherwise minionsd acknowledges output
        // that may not have arrived here.
        self.controls.push_back(client.offsets());
        loop {
            let writing = self.output.is_writing();
            let something = open && (!self.controls.is_empty() || client.has_input());
            tokio::select! {
                happened = self.local.next(client.input_room()) => {
                    if let Some(end) = self.happened(client, happened) {
                        return Ok(end);
                    }
                }
                written = self.output.written(), if writing => {
                    if let Err(error) = written {
                        return Ok(StreamEnd::Leave(write_failed(error)));
                    }
                    // Nothing was received meanwhile because this loop does not receive while it writes.
                    heard = Instant::now();
                    self.controls.extend(client.ack(false));
                }
                message = link.receive(), if !writing => {
                    heard = Instant::now();
                    if let Some(end) = self.received(client, message)? {
                        return Ok(end);
                    }
                }
                room = outgoing.reserve(), if something => {
                    let Ok(room) = room else {
                        // The reader reports the reason, after the messages that have arrived.
                        open = false;
                        continue;
                    };
                    let control = self.controls.pop_front();
                    let message = control.map(|control| ChannelMessage::host(&control));
                    if let Some(message) = message.or_else(|| client.next_input()) {
                        room.send(message);
                    }
                }
                () = sleep_until(heard + SILENCE), if !writing => {
                    // This process may have been stopped (SIGSTOP), with messages waiting in the queue.
                    let Some(message) = link.received() else {
                        return Ok(StreamEnd::Lost(LinkError::Silent));
                    };
                    heard = Instant::now();
                    if let Some(end) = self.received(client, message)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn received(
        &mut self,
        client: &mut ExecClient,
        message: Result<ChannelMessage, LinkError>,
    ) -> Result<Option<StreamEnd>, Failure> {
        let message = match message {
            Ok(message) => message,
            Err(why) => return Ok(Some(StreamEnd::Lost(why))),
        };
        self.retry.succeeded();
        match client.receive(message, Instant::now().into_std())? {
            StreamEvent::Output(stream, bytes) => self.output.begin(stream, bytes),
            StreamEvent::Gap(stream, bytes) => {
                self.incomplete = true;
                self.remark_gap(stream, bytes);
            }
            StreamEvent::InputTaken => {}
            StreamEvent::Heartbeat => self.controls.extend(client.ack(true)),
            StreamEvent::Ended(ended) => {
                match &ended.outcome {
                    Outcome::Lost { reason } => {
                        self.remark(&format!("the program's end is unknown: {reason}"));
                    }
                    Outcome::Signaled { reason: Some(SignalReason::Oom), .. } => {
                        self.remark("the guest's kernel ended the program: out of memory");
                    }
                    Outcome::Exited { .. }
                    | Outcome::Signaled { .. }
                    | Outcome::TimedOut
                    | Outcome::FailedToStart { .. } => {}
                }
                return Ok(Some(StreamEnd::Status(match ended.outcome.exit_code() {
                    // Incomplete output must not look like success.
                    0 if self.incomplete => ExitStatus::Ours,
                    code => ExitStatus::remote(code),
                })));
            }
            StreamEvent::Refused(error) if error.code == Some(AgentCode::TakenOver) => {
                return Err(Failure::TakenOver(error));
            }
            StreamEvent::Refused(error) => {
                self.remark(&format!("the agent refused: {}", error.message))
            }
        }
        Ok(None)
    }

    fn happened(&mut self, client: &mut ExecClient, happened: LocalEvent) -> Option<StreamEnd> {
        match happened {
            LocalEvent::Input(bytes) => client.push_input(bytes),
            LocalEvent::InputEnded => client.close_input(),
            // Closing the input here would look like a regular end of input to the program.
            LocalEvent::InputFailed(error) => {
                return Some(StreamEnd::Leave(Err(Failure::Input(error))));
            }
            LocalEvent::Help => self.remarks(&HELP),
            LocalEvent::Leave => return Some(StreamEnd::Leave(Ok(ExitStatus::Ours))),
            LocalEvent::Resized => self.send_size(),
            LocalEvent::Signal(INT) if !self.plan.raw && !self.interrupted => {
                self.interrupted = true;
                self.controls
                    .extend(Signal::from_number(INT).map(|signal| HostControl::Signal { signal }));
            }
            LocalEvent::Signal(number) => {
                return Some(StreamEnd::Leave(Ok(ExitStatus::by_signal(number))));
            }
        }
        None
    }

    fn send_size(&mut self) {
        if self.plan.tty
            && let Some((rows, cols)) = size()
        {
            self.controls.push_back(HostControl::Resize { rows, cols });
        }
    }

    fn remark_gap(&self, stream: OutputStream, bytes: u64) {
        let name = match stream {
            OutputStream::Stdout => "standard output",
            OutputStream::Stderr => "standard error",
        };
        self.remark(&format!("{bytes} bytes of {name} are lost"));
    }
}

/// Converts a failed write. A closed pipe ends minionsctl as SIGPIPE would end a local program.
fn write_failed(error: io::Error) -> Result<ExitStatus, Failure> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(ExitStatus::by_signal(PIPE)),
        _ => Err(Failure::Output(error)),
    }
}
