//! Channel mode: a connection that is one exec's stream until its end.
//!
//! Both directions are independent. The host's messages are always read: input is bounded by its
//! window, and everything else is small. What the agent sends waits for the host as long as the host
//! likes: that is what stops a program whose reader has stopped.

use super::SessionError;
use super::incoming::Incoming;
use crate::exec::{ExecRefusal, Handle, Piece, Tail};
use crate::ops;
use bytes::{BufMut, BytesMut};
use minions_proto::channel::{
    AgentControl, CHUNK_LEN, Channel, ChannelError, HostControl, Message, put_header,
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

/// Refusals that wait to be told; a host that asks for more isn't told each.
const MAX_REFUSALS: usize = 16;

/// For messages of the host that arrived before its connection broke.
const LAST_MESSAGES: Duration = Duration::from_millis(100);

/// In front of a payload: length and channel.
const HEADER_LEN: usize = PREFIX_LEN + 1;

/// Serves the stream until its last message was sent, the host left, or the connection broke. What
/// the exec makes of that is decided when `tail` is dropped.
pub(super) async fn run<S>(incoming: &mut Incoming<S>, mut tail: Tail) -> Result<(), SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (read, write, decoder) = incoming.split();
    let handle = tail.handle();
    let (refuse, refusals) = mpsc::channel(MAX_REFUSALS);
    let mut listening = pin!(listen(read, decoder, &handle, &refuse));
    tokio::select! {
        left = &mut listening => left,
        ended = speak(write, &mut tail, refusals) => {
            if ended.is_err() {
                // A host that closed without reading everything may have sent `leave` before.
                let _ = timeout(LAST_MESSAGES, listening).await;
            }
            ended
        }
    }
}

/// The host's messages. Ready when it has left.
async fn listen<R: AsyncRead + Unpin>(
    mut read: R,
    decoder: &mut Decoder,
    handle: &Handle,
    refuse: &mpsc::Sender<AgentError>,
) -> Result<(), SessionError> {
    loop {
        while let Some(payload) = decoder.next_frame()? {
            let message = Message::decode(payload)?;
            let obeyed = match message.channel {
                Channel::Stdin => handle.input(&message.payload),
                Channel::Control => {
                    let control = message.host_control();
                    if matches!(control, Ok(HostControl::Leave)) {
                        // Leaving can't be refused.
                        let _ = handle.control(HostControl::Leave);
                        return Ok(());
                    }
                    obey(handle, control, refuse)
                }
                Channel::Stdout | Channel::Stderr => {
                    return Err(ChannelError::Direction(message.channel).into());
                }
            };
            if let Err(refusal) = obeyed {
                // If the list is full, the host has been told often enough.
                let _ = refuse.try_send(ops::exec::stream_refusal(&refusal));
            }
        }
        if read.read_buf(decoder.read_buffer()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn obey(
    handle: &Handle,
    control: Result<HostControl, ChannelError>,
    refuse: &mpsc::Sender<AgentError>,
) -> Result<(), ExecRefusal> {
    match control {
        Ok(control) => handle.control(control),
        Err(error) => {
            let refusal = AgentError::new(ErrorCode::BadRequest, ops::chain(&error));
            let _ = refuse.try_send(refusal);
            Ok(())
        }
    }
}

/// The agent's messages, up to the last.
async fn speak<W: AsyncWrite + Unpin>(
    mut write: W,
    tail: &mut Tail,
    mut refusals: mpsc::Receiver<AgentError>,
) -> Result<(), SessionError> {
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    // One heartbeat, not one for each interval, after a host that did not read for long.
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut frame = BytesMut::with_capacity(HEADER_LEN + CHUNK_LEN);
    loop {
        frame.clear();
        // Room for the header, which can be written once the length is known.
        frame.put_bytes(0, HEADER_LEN);
        let control = tokio::select! {
            piece = tail.next(&mut frame) => match piece {
                Piece::Output(stream, len) => {
                    let mut header = BytesMut::with_capacity(HEADER_LEN);
                    put_header(&mut header, stream.channel(), len);
                    frame[..HEADER_LEN].copy_from_slice(&header);
                    None
                }
                piece => Some(said(piece)),
            },
            _ = heartbeat.tick() => Some(Said::More(AgentControl::Heartbeat)),
            Some(refusal) = refusals.recv() => Some(Said::More(AgentControl::Error(refusal))),
        };
        let last = match control {
            None => false,
            Some(Said::Close) => return Ok(()),
            Some(Said::More(control)) => {
                frame.clear();
                Message::agent(&control).encode(&mut frame);
                false
            }
            Some(Said::Last(control)) => {
                frame.clear();
                Message::agent(&control).encode(&mut frame);
                true
            }
        };
        write.write_all(&frame).await?;
        write.flush().await?;
        if last {
            return Ok(());
        }
    }
}

/// What a piece that is no output is on the control channel.
enum Said {
    More(AgentControl),
    Last(AgentControl),
    Close,
}

fn said(piece: Piece) -> Said {
    match piece {
        Piece::Gap { stream, from, to } => Said::More(AgentControl::Gap { stream, from, to }),
        Piece::InputTaken(stdin) => Said::More(AgentControl::Ack { stdin }),
        Piece::Ended(ended) => Said::Last(AgentControl::Exit(ended)),
        Piece::TakenOver => {
            let message = "another client attached to this exec";
            Said::Last(AgentControl::Error(AgentError::new(ErrorCode::TakenOver, message)))
        }
        // Output is no control message; the stream of a snapshot just ends.
        Piece::Complete | Piece::Output(..) => Said::Close,
    }
}
