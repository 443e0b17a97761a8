//! A stream through minionsd's WebSocket.

use super::exec_link::{ExecLink, FirstMessage, OPEN_DEADLINE, QUEUE};
use crate::client::{DaemonClient, vm_path};
use crate::failure::Failure;
use crate::link_error::LinkError;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use minions_api::exec::AttachReply;
use minions_api::{Problem, VmName};
use minions_proto::channel::ChannelMessage;
use minions_proto::frame::MAX_FRAME_LEN;
use minions_proto::message::ExecAttached;
use reqwest::Upgraded;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message as WsMessage};

/// Id of an exec whose agent does not support ids.
const NO_ID: &str = "none";

type Stream = WebSocketStream<Upgraded>;

pub(super) async fn open(
    client: &DaemonClient,
    vm: &VmName,
    opening: &FirstMessage,
) -> Result<(ExecAttached, ExecLink), Failure> {
    let upgraded = client.upgrade(&vm_path(vm, "/exec")).await?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME_LEN))
        .max_frame_size(Some(MAX_FRAME_LEN));
    let mut stream = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
    let request = match opening {
        FirstMessage::Start(request) => serde_json::to_string(request),
        FirstMessage::Attach(request) => serde_json::to_string(request),
    };
    // Serializing cannot fail: the request has only texts, numbers, lists and string-keyed maps.
    let request = request.unwrap_or_default();
    let first = timeout(OPEN_DEADLINE, async {
        let sent = stream.send(WsMessage::text(request)).await.map_err(LinkError::of_websocket);
        match (sent, answer(&mut stream).await) {
            (Ok(()), answered) => answered,
            // minionsd refuses a request that is too long before it has read all of it, and closes the connection.
            // Its answer is more precise than the failed write.
            (Err(_), Ok(answer)) => Ok(answer),
            (Err(_), Err(closed @ LinkError::Closed { .. })) => Err(closed),
            (Err(unsent), Err(_)) => Err(unsent),
        }
    });
    let text = first.await.map_err(|_| LinkError::Silent)??;
    let attached = attached(client, &text)?;
    Ok((attached, spawn(stream)))
}

async fn answer(stream: &mut Stream) -> Result<String, LinkError> {
    loop {
        match stream.next().await {
            Some(Ok(WsMessage::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(message) => {
                decode(message)?;
            }
            None => return Err(LinkError::ended()),
        }
    }
}

fn attached(client: &DaemonClient, text: &str) -> Result<ExecAttached, Failure> {
    let foreign = |error: serde_json::Error| client.not_minionsd(error.to_string());
    let Ok(reply) = serde_json::from_str::<AttachReply>(text) else {
        let problem: Problem = serde_json::from_str(text).map_err(foreign)?;
        return Err(Failure::Problem(Box::new(problem)));
    };
    Ok(ExecAttached {
        // The exec of a base agent has no valid id.
        id: reply.id.parse().or_else(|_| NO_ID.parse())?,
        created: reply.created,
        pid: reply.pid,
        stdout: reply.stdout,
        stderr: reply.stderr,
        stdin: reply.stdin,
        stdin_acked: reply.stdin_acked,
        stdin_window: reply.stdin_window,
        stdin_closed: reply.stdin_closed,
        reattach_grace_ms: Some(reply.reattach_grace_ms),
    })
}

fn spawn(stream: Stream) -> ExecLink {
    let (sink, stream) = stream.split();
    let (incoming_sender, incoming) = mpsc::channel(QUEUE);
    let (outgoing, outgoing_receiver) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(read(stream, incoming_sender));
    tasks.spawn(async {
        // The reader reports why a connection broke.
        let _ = write(sink, outgoing_receiver).await;
    });
    ExecLink { incoming, outgoing, tasks }
}

async fn read(
    mut stream: SplitStream<Stream>,
    incoming: mpsc::Sender<Result<ChannelMessage, LinkError>>,
) {
    while let Some(message) = stream.next().await {
        let Some(message) = decode(message).transpose() else { continue };
        let last = message.is_err();
        if incoming.send(message).await.is_err() || last {
            return;
        }
    }
}

async fn write(
    mut sink: SplitSink<Stream, WsMessage>,
    mut outgoing: mpsc::Receiver<ChannelMessage>,
) -> Result<(), Error> {
    while let Some(message) = outgoing.recv().await {
        sink.feed(WsMessage::Binary(message.to_bytes())).await?;
        while let Ok(message) = outgoing.try_recv() {
            sink.feed(WsMessage::Binary(message.to_bytes())).await?;
        }
        sink.flush().await?;
    }
    // Sends the Close frame: nothing follows.
    sink.close().await
}

/// Decodes a WebSocket message; `None` for one without a channel message.
fn decode(message: Result<WsMessage, Error>) -> Result<Option<ChannelMessage>, LinkError> {
    match message.map_err(LinkError::of_websocket)? {
        WsMessage::Binary(bytes) => Ok(Some(ChannelMessage::decode(bytes)?)),
        WsMessage::Close(frame) => Err(LinkError::closed(frame.as_ref())),
        // The library answers pings. minionsd sends no text after the first message.
        WsMessage::Text(_) | WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_) => {
            Ok(None)
        }
    }
}
