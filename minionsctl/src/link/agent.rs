//! Straight to an agent.

use super::{Link, LinkError, OPEN_DEADLINE, Opening, QUEUE};
use crate::agent::{connect, reply_error};
use crate::failure::Failure;
use bytes::BytesMut;
use minions_api::exec::{self as api, AttachRequest, ExecRequest};
use minions_proto::Call;
use minions_proto::channel::Message;
use minions_proto::connection::ExchangeError;
use minions_proto::frame::Decoder;
use minions_proto::message::{
    ExecAttach, ExecAttached, ExecStart, OnDisconnect, Role, Tty, decode_reply, encode_request,
};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(super) async fn open(
    socket: &Path,
    opening: &Opening,
) -> Result<(ExecAttached, Link), Failure> {
    let mut stream = connect(socket).await?;
    let mut decoder = Decoder::new();
    let reply = async {
        match opening {
            Opening::Start(request) => {
                ask(&mut stream, &mut decoder, &start(request.as_ref().clone())?).await
            }
            Opening::Attach(request) => ask(&mut stream, &mut decoder, &attach(request)?).await,
        }
    };
    let attached = timeout(OPEN_DEADLINE, reply).await.map_err(|_| LinkError::Silent)??;
    Ok((attached, spawn(stream, decoder)))
}

/// One call; what follows its reply stays in the decoder.
async fn ask<C: Call>(
    stream: &mut UnixStream,
    decoder: &mut Decoder,
    call: &C,
) -> Result<C::Reply, Failure> {
    let request = encode_request(call).map_err(ExchangeError::from)?;
    stream.write_all(&request).await.map_err(LinkError::Broken)?;
    let payload = loop {
        if let Some(payload) = decoder.next_frame().map_err(LinkError::from)? {
            break payload;
        }
        if stream.read_buf(decoder.read_buffer()).await.map_err(LinkError::Broken)? == 0 {
            return Err(LinkError::ended().into());
        }
    };
    Ok(decode_reply(&payload).map_err(reply_error)?)
}

/// The request as the wire has it. Through minionsd, minionsd does the same.
pub(crate) fn start(request: ExecRequest) -> Result<ExecStart, Failure> {
    let tty = request.tty.map(|api::Tty { rows, cols, term }| Tty { rows, cols, term });
    let start = ExecStart {
        id: request.id.map(|id| id.parse()).transpose()?,
        command: request.command,
        args: request.args,
        env: request.env,
        cwd: request.cwd,
        user: request.user,
        stdin: request.interactive.unwrap_or(true),
        tty,
        timeout_ms: request.timeout_ms,
        kill_grace_ms: request.kill_grace_ms,
        rlimits: request.rlimits,
        on_disconnect: match request.on_disconnect {
            Some(api::OnDisconnect::Detach) => OnDisconnect::Detach,
            Some(api::OnDisconnect::Kill) | None => OnDisconnect::Kill,
        },
    };
    start.validate()?;
    Ok(start)
}

fn attach(request: &AttachRequest) -> Result<ExecAttach, Failure> {
    Ok(ExecAttach {
        id: request.attach.parse()?,
        stdout: request.stdout_offset,
        stderr: request.stderr_offset,
        role: Role::Control,
    })
}

fn spawn(stream: UnixStream, decoder: Decoder) -> Link {
    let (reader, writer) = stream.into_split();
    let (incoming_sender, incoming) = mpsc::channel(QUEUE);
    let (outgoing, outgoing_receiver) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(read(reader, decoder, incoming_sender));
    tasks.spawn(write(writer, outgoing_receiver));
    Link { incoming, outgoing, _tasks: tasks }
}

async fn read(
    mut reader: OwnedReadHalf,
    mut decoder: Decoder,
    incoming: mpsc::Sender<Result<Message, LinkError>>,
) {
    loop {
        let message = next(&mut reader, &mut decoder).await;
        let last = message.is_err();
        if incoming.send(message).await.is_err() || last {
            return;
        }
    }
}

async fn next(reader: &mut OwnedReadHalf, decoder: &mut Decoder) -> Result<Message, LinkError> {
    loop {
        if let Some(payload) = decoder.next_frame()? {
            return Ok(Message::decode(payload)?);
        }
        if reader.read_buf(decoder.read_buffer()).await.map_err(LinkError::Broken)? == 0 {
            return Err(LinkError::ended());
        }
    }
}

async fn write(mut writer: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Message>) {
    let mut frames = BytesMut::new();
    while let Some(message) = outgoing.recv().await {
        message.encode(&mut frames);
        if writer.write_all_buf(&mut frames).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}
