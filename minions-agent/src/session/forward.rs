//! Channel mode for a forward: moves bytes between the host and a target.
//!
//! ```text
//!  host ── frames ─▶ listen ─▶ queue of 4 messages ─▶ feed ── write, shutdown ─▶ target
//!  host ◀─ frames ── speak ◀──────────── read ─────────────────────────────────── target
//!                      ▲ heartbeat every 5 s
//! ```
//!
//! Backpressure is the sockets': a target that does not read fills its socket and the queue, and then the agent
//! does not read from the host; a host that does not read stops the reading of the target.
//!
//! A broken connection to the host ends all three tasks at once, which closes the target's connection. While the
//! queue is full, the connection is not read, and only the next heartbeat notices that it is broken.

use super::SessionError;
use super::incoming::FrameReader;
use crate::error_chain;
use crate::forward::{OpenForward, TargetReader, TargetWriter};
use bytes::{BufMut, Bytes, BytesMut};
use minions_proto::channel::{CHUNK_LEN, Channel, ChannelError, ChannelMessage, put_header};
use minions_proto::forward::{
    CloseReason, FORWARD_SILENCE, ForwardAgentControl, ForwardHostControl, control, decode_control,
};
use minions_proto::frame::{Decoder, PREFIX_LEN};
use minions_proto::message::HEARTBEAT;
use minions_proto::{AgentError, ErrorCode};
use std::io;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Messages of the host that wait for the target.
const QUEUE_LEN: usize = 4;

/// Length of the header of a message: frame length and channel.
const HEADER_LEN: usize = PREFIX_LEN + 1;

/// End of a forward, other than a broken connection to the host.
#[derive(Debug)]
enum ForwardEnd {
    /// Both directions have ended, or the host asked for the end, or is silent.
    Closed(CloseReason),
    /// The target's connection failed.
    Failed(io::Error),
    /// The host violated the protocol.
    Violated(ChannelError),
}

/// Serves a forward until its last message was sent or the host's connection broke.
pub(super) async fn run(
    incoming: &mut FrameReader<'_>,
    mut forward: OpenForward,
) -> Result<(), SessionError> {
    let (read, mut write, decoder) = incoming.split();
    let mut out = BytesMut::new();
    let end = {
        let (reader, writer) = forward.socket.split();
        let (queue, queued) = mpsc::channel(QUEUE_LEN);
        let speaking = speak(&mut write, &mut out, reader, feed(writer, queued));
        tokio::select! {
            end = listen(read, decoder, queue) => end,
            end = speaking => end,
        }
    };
    // Closes the target's connection before the host learns of the end.
    let is_complete = matches!(end, Ok(ForwardEnd::Closed(CloseReason::Ended)));
    if forward.is_reset_on_failure && !is_complete {
        forward.socket.reset();
    } else {
        drop(forward.socket);
    }
    let end = end?;
    // A frame that was written in part must be completed first.
    put_last(end, &mut out);
    super::write(&mut write, &out).await
}

/// Appends the messages that report the end.
fn put_last(end: ForwardEnd, out: &mut BytesMut) {
    let (error, reason) = match end {
        ForwardEnd::Closed(reason) => (None, reason),
        ForwardEnd::Failed(error) => {
            let message = format!("the target's connection failed: {error}");
            let errno = error.raw_os_error();
            let failed = AgentError::new(ErrorCode::ForwardFailed, message).with_errno(errno);
            (Some(failed), CloseReason::Reset)
        }
        ForwardEnd::Violated(error) => {
            let violated = AgentError::new(ErrorCode::BadRequest, error_chain(&error));
            (Some(violated), CloseReason::Protocol)
        }
    };
    if let Some(error) = error {
        control(&ForwardAgentControl::Error(error)).encode(out);
    }
    control(&ForwardAgentControl::Closed { reason }).encode(out);
}

/// Reads the host's messages, and queues its bytes; an empty message is their end.
async fn listen<R: AsyncRead + Unpin>(
    mut read: R,
    decoder: &mut Decoder,
    queue: mpsc::Sender<Bytes>,
) -> Result<ForwardEnd, SessionError> {
    let mut has_ended = false;
    loop {
        while let Some(payload) = decoder.next_frame()? {
            let message = match ChannelMessage::decode(payload) {
                Ok(message) => message,
                Err(error) => return Ok(ForwardEnd::Violated(error)),
            };
            match message.channel {
                // Bytes after the end are dropped.
                Channel::Stdin if has_ended => {}
                Channel::Stdin => {
                    has_ended = message.payload.is_empty();
                    // Fails if the target reads no more: the bytes are dropped, as a socket does.
                    let _ = queue.send(message.payload).await;
                }
                Channel::Control => match decode_control(&message) {
                    Ok(ForwardHostControl::Leave) => {
                        return Ok(ForwardEnd::Closed(CloseReason::Left));
                    }
                    Ok(ForwardHostControl::Heartbeat | ForwardHostControl::Unknown) => {}
                    Err(error) => return Ok(ForwardEnd::Violated(error)),
                },
                Channel::Stdout | Channel::Stderr => {
                    return Ok(ForwardEnd::Violated(ChannelError::Direction(message.channel)));
                }
            }
        }
        match timeout(FORWARD_SILENCE, read.read_buf(decoder.read_buffer())).await {
            Err(_) => return Ok(ForwardEnd::Closed(CloseReason::HostSilent)),
            Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(read) => _ = read?,
        }
    }
}

/// Writes queued bytes to the target, and ends its direction at their end.
async fn feed(mut writer: TargetWriter<'_>, mut queued: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(bytes) = queued.recv().await {
        if bytes.is_empty() {
            return writer.shutdown().await;
        }
        writer.write_all(&bytes).await?;
    }
    Ok(())
}

/// Sends the target's bytes and heartbeats to the host, while `feeding` runs. Returns when both directions have
/// ended.
///
/// If the future is dropped, `out` contains the rest of a frame that was sent in part.
async fn speak<W: AsyncWrite + Unpin>(
    write: &mut W,
    out: &mut BytesMut,
    reader: TargetReader<'_>,
    feeding: impl Future<Output = io::Result<()>>,
) -> Result<ForwardEnd, SessionError> {
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut feeding = pin!(feeding);
    let mut fed = None;
    let mut has_ended = false;
    loop {
        if has_ended && out.is_empty() {
            match fed {
                None => {}
                Some(Ok(())) => return Ok(ForwardEnd::Closed(CloseReason::Ended)),
                Some(Err(error)) => return Ok(ForwardEnd::Failed(error)),
            }
        }
        tokio::select! {
            written = write.write_buf(out), if !out.is_empty() => {
                if written? == 0 {
                    return Err(io::Error::from(io::ErrorKind::WriteZero).into());
                }
                if out.is_empty() {
                    // An idle forward keeps no buffer.
                    *out = BytesMut::new();
                }
            }
            ready = reader.readable(), if out.is_empty() && !has_ended => {
                match ready.and_then(|()| read_frame(&reader, out)) {
                    Ok(len) => has_ended = len == Some(0),
                    Err(error) => return Ok(ForwardEnd::Failed(error)),
                }
            }
            _ = heartbeat.tick(), if out.is_empty() => {
                control(&ForwardAgentControl::Heartbeat).encode(out);
            }
            done = &mut feeding, if fed.is_none() => fed = Some(done),
        }
    }
}

/// Reads bytes of the target as one frame; without bytes, the frame of their end. Returns the number of bytes, or
/// `None` if there is nothing to read yet.
fn read_frame(reader: &TargetReader<'_>, out: &mut BytesMut) -> io::Result<Option<usize>> {
    out.reserve(HEADER_LEN + CHUNK_LEN);
    out.put_bytes(0, HEADER_LEN);
    let read = reader.try_read_buf(&mut (&mut *out).limit(CHUNK_LEN));
    let len = match read {
        Ok(len) => len,
        Err(error) => {
            out.clear();
            let is_early = error.kind() == io::ErrorKind::WouldBlock;
            return if is_early { Ok(None) } else { Err(error) };
        }
    };
    let mut header = BytesMut::with_capacity(HEADER_LEN);
    put_header(&mut header, Channel::Stdout, len);
    out[..HEADER_LEN].copy_from_slice(&header);
    Ok(Some(len))
}
