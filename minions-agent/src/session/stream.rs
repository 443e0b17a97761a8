//! Channel mode: a connection that carries the stream of one exec until it ends.
//!
//! The directions are independent. The host's messages are always read: input is bounded by its window, and
//! all other messages are small. The agent's messages wait for the host without limit: this is the
//! backpressure that stops a program whose reader has stopped.

use super::SessionError;
use super::incoming::FrameReader;
use crate::error_chain;
use crate::exec::{ClientHandle, ExecRefusal, ExecTail, TailEvent};
use crate::ops;
use bytes::{BufMut, BytesMut};
use minions_proto::channel::{
    AgentControl, CHUNK_LEN, Channel, ChannelError, ChannelMessage, HostControl, put_header,
};
use minions_proto::frame::{Decoder, PREFIX_LEN};
use minions_proto::message::HEARTBEAT;
use minions_proto::{AgentError, ErrorCode};
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Limit of error messages that wait to be sent; further errors are not reported.
const MAX_REFUSALS: usize = 16;

/// Time for handling messages that had arrived before the connection broke.
const LAST_MESSAGES: Duration = Duration::from_millis(100);

/// Length of the header of a message: frame length and channel.
const HEADER_LEN: usize = PREFIX_LEN + 1;

/// State of the connection after a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterStream {
    /// The last control message was sent: the host may send requests.
    Requests,
    /// The host left, or was told everything without a last message.
    Close,
}

/// Serves the stream until its last message was sent, the host left, or the connection broke. Dropping `tail`
/// tells the exec that the stream has ended.
pub(super) async fn run(
    incoming: &mut FrameReader<'_>,
    mut tail: ExecTail,
) -> Result<AfterStream, SessionError> {
    let (read, write, decoder) = incoming.split();
    let handle = tail.handle();
    let (refuse, refusals) = mpsc::channel(MAX_REFUSALS);
    let mut listening = pin!(listen(read, decoder, &handle, &refuse));
    tokio::select! {
        left = &mut listening => left.map(|()| AfterStream::Close),
        ended = speak(write, &mut tail, refusals) => {
            if ended.is_err() {
                // A host that closed without reading everything may have sent `leave` before.
                let _ = timeout(LAST_MESSAGES, listening).await;
            }
            ended
        }
    }
}

/// Reads and handles the host's messages until it leaves.
async fn listen<R: AsyncRead + Unpin>(
    mut read: R,
    decoder: &mut Decoder,
    handle: &ClientHandle,
    refuse: &mpsc::Sender<AgentError>,
) -> Result<(), SessionError> {
    loop {
        while let Some(payload) = decoder.next_frame()? {
            let message = ChannelMessage::decode(payload)?;
            let handled = match message.channel {
                Channel::Stdin => handle.input(&message.payload),
                Channel::Control => {
                    let control = message.host_control();
                    if matches!(control, Ok(HostControl::Leave)) {
                        // Leaving is never refused.
                        let _ = handle.control(HostControl::Leave);
                        return Ok(());
                    }
                    handle_control(handle, control, refuse)
                }
                Channel::Stdout | Channel::Stderr => {
                    return Err(ChannelError::Direction(message.channel).into());
                }
            };
            if let Err(refusal) = handled {
                // If the queue is full, enough errors are already reported.
                let _ = refuse.try_send(ops::exec::stream_refusal(&refusal));
            }
        }
        if read.read_buf(decoder.read_buffer()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn handle_control(
    handle: &ClientHandle,
    control: Result<HostControl, ChannelError>,
    refuse: &mpsc::Sender<AgentError>,
) -> Result<(), ExecRefusal> {
    match control {
        Ok(control) => handle.control(control),
        Err(error) => {
            let refusal = AgentError::new(ErrorCode::BadRequest, error_chain(&error));
            let _ = refuse.try_send(refusal);
            Ok(())
        }
    }
}

/// Sends the agent's messages, up to the last.
async fn speak<W: AsyncWrite + Unpin>(
    mut write: W,
    tail: &mut ExecTail,
    mut refusals: mpsc::Receiver<AgentError>,
) -> Result<AfterStream, SessionError> {
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    // If the host has not read for some time, send one heartbeat, not one for each interval.
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut frame = BytesMut::with_capacity(HEADER_LEN + CHUNK_LEN);
    loop {
        frame.clear();
        // Reserve room for the header, which is written once the length is known.
        frame.put_bytes(0, HEADER_LEN);
        let control = tokio::select! {
            piece = tail.next(&mut frame) => match piece {
                TailEvent::Output(stream, len) => {
                    let mut header = BytesMut::with_capacity(HEADER_LEN);
                    put_header(&mut header, stream.channel(), len);
                    frame[..HEADER_LEN].copy_from_slice(&header);
                    None
                }
                piece => Some(control_of(piece)),
            },
            _ = heartbeat.tick() => Some(ControlStep::More(AgentControl::Heartbeat)),
            Some(refusal) = refusals.recv() => Some(ControlStep::More(AgentControl::Error(refusal))),
        };
        let last = match control {
            None => None,
            Some(ControlStep::Close) => return Ok(AfterStream::Close),
            Some(ControlStep::More(control)) => {
                frame.clear();
                ChannelMessage::agent(&control).encode(&mut frame);
                None
            }
            Some(ControlStep::Last(control, after)) => {
                frame.clear();
                ChannelMessage::agent(&control).encode(&mut frame);
                Some(after)
            }
        };
        write.write_all(&frame).await?;
        write.flush().await?;
        if let Some(after) = last {
            return Ok(after);
        }
    }
}

/// Message for an event other than output on the control channel, and what follows it.
enum ControlStep {
    More(AgentControl),
    Last(AgentControl, AfterStream),
    Close,
}

fn control_of(piece: TailEvent) -> ControlStep {
    match piece {
        TailEvent::Gap { stream, from, to } => {
            ControlStep::More(AgentControl::Gap { stream, from, to })
        }
        TailEvent::InputTaken(stdin) => ControlStep::More(AgentControl::Ack { stdin }),
        TailEvent::Ended(ended) => {
            ControlStep::Last(AgentControl::Exit(ended), AfterStream::Requests)
        }
        TailEvent::TakenOver => {
            let message = "another client attached to this exec";
            let error = AgentError::new(ErrorCode::TakenOver, message);
            ControlStep::Last(AgentControl::Error(error), AfterStream::Requests)
        }
        TailEvent::Inherited(id) => {
            let message = format!(
                "the guest was restored or cloned: this stream belongs to the guest that was saved; the program is \
                 listed as {id}"
            );
            let error = AgentError::new(ErrorCode::ExecGone, message);
            // A host recognises the end by the close.
            ControlStep::Last(AgentControl::Error(error), AfterStream::Close)
        }
        // The stream of a snapshot ends without a message. Output is not passed to this function.
        TailEvent::Complete | TailEvent::Output(..) => ControlStep::Close,
    }
}
