//! The subsystem on a channel: both directions, until either side ends.

use super::super::channel_output::{ChannelOutput, ProgramEnd};
use super::super::input::{ChannelInput, InputEvent};
use super::error::SftpError;
use super::packet_decoder::PacketDecoder;
use super::reply::{self, ReplyForm};
use super::request::ClientPacket;
use super::session_link::{self, SessionReceiver, SessionSender};
use super::status::StatusCode;
use super::translation::{TranslatedRequest, translate};
use crate::link_error::LinkError;
use crate::output::{failure_line, to_stderr};
use crate::session::SILENCE;
use crate::target::Target;
use bytes::Bytes;
use minions_proto::channel::OutputStream;
use minions_proto::file_session::{SessionAnswer, SessionMessage, SessionRequest};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Name of the subsystem.
pub(in super::super) const SFTP: &str = "sftp";

/// Number of bytes of the client's input that are taken at a time.
const INPUT_LEN: usize = 64 * 1024;

/// Largest number of requests without a reply. OpenSSH's client sends 64, or with `-R` up to 1024.
const MAX_PENDING: usize = 1024;

/// The subsystem on a channel.
#[derive(Debug)]
pub(in super::super) struct SftpSubsystem {
    target: Arc<Target>,
    user: Option<String>,
    input: Arc<ChannelInput>,
    output: ChannelOutput,
}

/// Reply that the client expects next.
#[derive(Debug)]
enum PendingReply {
    /// The reply itself.
    Ready(Bytes),
    /// The reply to a request that the guest has not answered yet.
    Awaited(AwaitedReply),
}

/// Request that the guest has not answered yet.
#[derive(Debug, Clone, Copy)]
struct AwaitedReply {
    /// Id of the client's request.
    id: u32,
    /// Number of the request in the session.
    number: u64,
    form: ReplyForm,
}

impl SftpSubsystem {
    /// Creates the subsystem for a channel of `user`.
    pub(in super::super) fn new(
        target: Arc<Target>,
        user: Option<String>,
        input: Arc<ChannelInput>,
        output: ChannelOutput,
    ) -> Self {
        Self { target, user, input, output }
    }

    /// Opens the file session, answers the request for the subsystem, and serves the client until either side ends.
    pub(in super::super) async fn run(self) {
        let opened = tokio::select! {
            opened = session_link::open(&self.target, self.user.as_deref()) => opened,
            () = self.input.closed() => return,
        };
        // An error means that the connection to the client has ended.
        match opened {
            Ok((sender, receiver)) => {
                if self.output.answer(true).await.is_ok() {
                    self.serve(sender, receiver).await;
                }
            }
            Err(failure) => {
                // SSH has no text for the reason.
                to_stderr(&format!("minionsctl: sftp: {}", failure_line(&failure)));
                let _ = self.output.answer(false).await;
            }
        }
        self.input.close();
    }

    async fn serve(&self, sender: SessionSender, receiver: SessionReceiver) {
        let (pending, replies) = mpsc::channel(MAX_PENDING);
        let requests = ClientRequests { input: &self.input, sender, pending, next: 0 };
        let replies = send_replies(receiver, replies, &self.output);
        tokio::pin!(replies);
        let end = tokio::select! {
            error = requests.forward() => match error {
                // The messages that have already arrived may contain the reason.
                SftpError::Link(lost) => tokio::select! {
                    end = &mut replies => end.and(Err(lost.into())),
                    () = self.input.closed() => Err(SftpError::ClientLeft),
                },
                error => Err(error),
            },
            end = &mut replies => end,
        };
        let end = match end {
            Ok(()) => ProgramEnd::Exited(0),
            Err(SftpError::ClientLeft) => return,
            Err(error) => ProgramEnd::failed(format!("sftp: {}", chain(&error))),
        };
        self.input.discard();
        tokio::select! {
            // An error means that the connection to the client has ended.
            _ = self.output.finish(end) => {}
            () = self.input.closed() => {}
        }
    }
}

/// Returns an error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// Direction from the client to the guest.
struct ClientRequests<'a> {
    input: &'a ChannelInput,
    sender: SessionSender,
    pending: mpsc::Sender<PendingReply>,
    /// Number of the next request in the session.
    next: u64,
}

impl ClientRequests<'_> {
    /// Forwards requests until the end of the client's input, and then waits until the client has left.
    async fn forward(self) -> SftpError {
        let input = self.input;
        match self.forward_input().await {
            Ok(_open) => {
                input.closed().await;
                SftpError::ClientLeft
            }
            Err(error) => error,
        }
    }

    /// Forwards requests until the end of the client's input, and then ends the other direction after all replies.
    /// Returns the session, which must stay open until then.
    async fn forward_input(mut self) -> Result<SessionSender, SftpError> {
        let mut packets = PacketDecoder::default();
        loop {
            match self.input.next(INPUT_LEN).await {
                InputEvent::Bytes(bytes) => packets.extend(&bytes),
                InputEvent::End => return Ok(self.sender),
                InputEvent::Closed => return Err(SftpError::ClientLeft),
                // These requests have no meaning for a subsystem.
                InputEvent::Resized { .. } | InputEvent::Signal(_) => continue,
            }
            let input = self.input;
            tokio::select! {
                sent = self.send(&mut packets) => sent?,
                () = input.closed() => return Err(SftpError::ClientLeft),
            }
        }
    }

    /// Forwards all complete packets.
    async fn send(&mut self, packets: &mut PacketDecoder) -> Result<(), SftpError> {
        while let Some(packet) = packets.next_packet()? {
            let (id, translated) = translate(ClientPacket::decode(packet)?);
            match translated {
                TranslatedRequest::Reply(reply) => {
                    self.expect(PendingReply::Ready(reply)).await?;
                }
                TranslatedRequest::Session { operation, data, form } => {
                    let number = self.next;
                    let request = SessionRequest { id: number, operation };
                    let Ok(message) = SessionMessage::new(&request, data) else {
                        let reason = "the request is too long";
                        let refused = reply::status(id, StatusCode::BadMessage, reason);
                        self.expect(PendingReply::Ready(refused)).await?;
                        continue;
                    };
                    self.next += 1;
                    self.expect(PendingReply::Awaited(AwaitedReply { id, number, form })).await?;
                    self.sender.queue(&message).await?;
                }
            }
        }
        self.sender.flush().await
    }

    /// Adds a reply to those that the client expects. At the limit, sends all queued requests before it waits: the guest
    /// must answer them first.
    async fn expect(&mut self, reply: PendingReply) -> Result<(), SftpError> {
        let reply = match self.pending.try_send(reply) {
            Ok(()) => return Ok(()),
            Err(
                mpsc::error::TrySendError::Full(reply) | mpsc::error::TrySendError::Closed(reply),
            ) => reply,
        };
        self.sender.flush().await?;
        self.pending.send(reply).await.map_err(|_| SftpError::ClientLeft)
    }
}

/// Sends the replies to the client, in the order of its requests, until all are sent after the end of its input.
async fn send_replies(
    mut receiver: SessionReceiver,
    mut replies: mpsc::Receiver<PendingReply>,
    output: &ChannelOutput,
) -> Result<(), SftpError> {
    let mut awaited = None;
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            next = replies.recv(), if awaited.is_none() => match next {
                None => return Ok(()),
                Some(PendingReply::Ready(reply)) => {
                    send(output, reply).await?;
                    heard = Instant::now();
                }
                Some(PendingReply::Awaited(request)) => awaited = Some(request),
            },
            message = timeout_at(heard + SILENCE, receiver.next()) => {
                if let Some(answer) = message.map_err(|_| LinkError::Silent)?? {
                    let request = match awaited.take() {
                        Some(request) => request,
                        None => next_awaited(&mut replies, output).await?,
                    };
                    send(output, reply_to(request, &answer)?).await?;
                }
                // While a reply was sent, nothing was received: the time of silence starts again.
                heard = Instant::now();
            }
        }
    }
}

/// Returns the next request that the guest answers, and sends the replies before it.
async fn next_awaited(
    replies: &mut mpsc::Receiver<PendingReply>,
    output: &ChannelOutput,
) -> Result<AwaitedReply, SftpError> {
    // A request is expected before it is sent, so that of an answer is in the queue.
    while let Ok(next) = replies.try_recv() {
        match next {
            PendingReply::Ready(reply) => send(output, reply).await?,
            PendingReply::Awaited(request) => return Ok(request),
        }
    }
    Err(SftpError::Mismatch)
}

fn reply_to(request: AwaitedReply, answer: &SessionMessage) -> Result<Bytes, SftpError> {
    let SessionAnswer { id, result } = answer.head()?;
    if id != request.number {
        return Err(SftpError::Mismatch);
    }
    reply::of_result(request.id, request.form, &result, &answer.data)
}

async fn send(output: &ChannelOutput, reply: Bytes) -> Result<(), SftpError> {
    output.send(OutputStream::Stdout, reply).await.map_err(|_| SftpError::ClientLeft)
}
