//! A stream directly to an agent.

use super::exec_link::{ExecLink, FirstMessage, OPEN_DEADLINE, QUEUE};
use crate::agent::{connect, failed};
use crate::agent_address::AgentAddress;
use crate::failure::Failure;
use crate::link_error::LinkError;
use bytes::BytesMut;
use minions_api::exec::{self as api, AttachRequest, ExecRequest};
use minions_proto::channel::ChannelMessage;
use minions_proto::connection::Connection;
use minions_proto::frame::Decoder;
use minions_proto::message::{
    ExecAttach, ExecAttached, ExecStart, Feature, HealthCheck, Role, Tty,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(super) async fn open(
    address: &AgentAddress,
    opening: &FirstMessage,
) -> Result<(ExecAttached, ExecLink), Failure> {
    let mut connection = Connection::new(connect(address).await?);
    let deadline = Instant::now() + OPEN_DEADLINE;
    let attached = match opening {
        FirstMessage::Start(request) => {
            let start = start(request.as_ref().clone())?;
            check_limits(&mut connection, &start, deadline).await?;
            connection.open(&start, deadline).await
        }
        FirstMessage::Attach(request) => connection.open(&attach(request)?, deadline).await,
    };
    let attached = attached.map_err(|error| failed(address.port, &connection, error))?;
    let (stream, decoder) = connection.into_parts();
    Ok((attached, spawn(stream, decoder)))
}

/// Checks that the agent supports the limits of `start`. An older agent would ignore them silently.
async fn check_limits(
    connection: &mut Connection<UnixStream>,
    start: &ExecStart,
    deadline: Instant,
) -> Result<(), Failure> {
    if start.limit().is_none() {
        return Ok(());
    }
    let health = connection.call(&HealthCheck {}, deadline).await?;
    if health.agent.is_some_and(|agent| agent.supports(Feature::ExecLimits)) {
        return Ok(());
    }
    Err(Failure::Usage(
        "this agent version does not support --memory and --pids (feature exec_limits); upgrade \
         minions-agent",
    ))
}

/// Converts the request to the wire message, as minionsd does for requests through it.
fn start(request: ExecRequest) -> Result<ExecStart, Failure> {
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
        memory_bytes: request.memory_bytes,
        pids: request.pids,
        on_disconnect: request.on_disconnect.unwrap_or_default(),
        reattach_grace_ms: None,
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

fn spawn(stream: UnixStream, decoder: Decoder) -> ExecLink {
    let (reader, writer) = stream.into_split();
    let (incoming_sender, incoming) = mpsc::channel(QUEUE);
    let (outgoing, outgoing_receiver) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(read(reader, decoder, incoming_sender));
    tasks.spawn(write(writer, outgoing_receiver));
    ExecLink { incoming, outgoing, tasks }
}

async fn read(
    mut reader: OwnedReadHalf,
    mut decoder: Decoder,
    incoming: mpsc::Sender<Result<ChannelMessage, LinkError>>,
) {
    loop {
        let message = next(&mut reader, &mut decoder).await;
        let last = message.is_err();
        if incoming.send(message).await.is_err() || last {
            return;
        }
    }
}

async fn next(
    reader: &mut OwnedReadHalf,
    decoder: &mut Decoder,
) -> Result<ChannelMessage, LinkError> {
    loop {
        if let Some(payload) = decoder.next_frame()? {
            return Ok(ChannelMessage::decode(payload)?);
        }
        if reader.read_buf(decoder.read_buffer()).await.map_err(LinkError::Broken)? == 0 {
            return Err(LinkError::ended());
        }
    }
}

async fn write(mut writer: OwnedWriteHalf, mut outgoing: mpsc::Receiver<ChannelMessage>) {
    let mut frames = BytesMut::new();
    while let Some(message) = outgoing.recv().await {
        message.encode(&mut frames);
        if writer.write_all_buf(&mut frames).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}
