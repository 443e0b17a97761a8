//! A program over minionsd's WebSocket: counts received bytes, and generates those that it sends.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use minions_api::exec::AttachReply;
use minions_proto::{
    channel::{AgentControl, CHUNK_LEN, Channel, ChannelMessage, HostControl},
    message::Outcome,
};
use serde_json::json;
use tokio::{net::UnixStream, runtime::Runtime, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

use super::rest::runtime;

/// Deadline for a message; long enough for a very busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Number of bytes of output after which an ack is sent: a quarter of what the agent keeps.
const ACK_EVERY: u64 = 128 * 1024;

/// Program that was started, with blocking methods.
#[derive(Debug)]
pub(crate) struct StreamedProgram {
    runtime: Runtime,
    stream: ExecStream,
}

/// The WebSocket of a program.
#[derive(Debug)]
struct ExecStream {
    socket: WebSocketStream<UnixStream>,
    /// Number of bytes of input that may be unacknowledged.
    window: u64,
}

impl StreamedProgram {
    /// Starts `sh -c script` in `vm`, with input if `stdin`.
    pub(crate) fn start(
        socket: &Path,
        vm: &str,
        script: &str,
        stdin: bool,
    ) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let stream = runtime.block_on(ExecStream::open(socket, vm, script, stdin))?;
        Ok(Self { runtime, stream })
    }

    /// Reads the output to its end and returns its length.
    pub(crate) fn drain(mut self) -> anyhow::Result<u64> {
        self.runtime.block_on(self.stream.drain())
    }

    /// Sends `len` bytes and the end of the input, and waits until the program has ended.
    pub(crate) fn feed(mut self, len: u64) -> anyhow::Result<()> {
        self.runtime.block_on(self.stream.feed(len))
    }
}

/// Meaning of a message for this client.
enum StreamEvent {
    Output(u64),
    /// The program has consumed its input up to this offset.
    Consumed(u64),
    Exit,
    Other,
}

impl ExecStream {
    async fn open(socket: &Path, vm: &str, script: &str, stdin: bool) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await.context("cannot connect to minionsd")?;
        let opening = client_async(format!("ws://localhost/vms/{vm}/exec"), stream);
        let (socket, _) =
            timeout(DEADLINE, opening).await.context("no answer to the upgrade")??;
        let mut stream = Self { socket, window: 0 };
        // This does not state whether there is input; without input, an empty message below ends it.
        let start = json!({ "command": "sh", "args": ["-c", script] });
        stream.socket.send(tungstenite::Message::text(start.to_string())).await?;
        let first = stream.receive().await?;
        let text = first.to_text().context("minionsd's first message is not text")?;
        let attached: AttachReply = serde_json::from_str(text)
            .with_context(|| format!("minionsd did not start the program: {text}"))?;
        stream.window = attached.stdin_window;
        if !stdin {
            stream.end_input().await?;
        }
        Ok(stream)
    }

    async fn drain(&mut self) -> anyhow::Result<u64> {
        let (mut received, mut acknowledged) = (0, 0);
        loop {
            match self.next().await? {
                StreamEvent::Output(len) => received += len,
                StreamEvent::Exit => return Ok(received),
                StreamEvent::Consumed(_) | StreamEvent::Other => {}
            }
            if received - acknowledged >= ACK_EVERY {
                acknowledged = received;
                let ack = HostControl::Ack { stdout: received, stderr: 0 };
                self.send(ChannelMessage::host(&ack).to_bytes()).await?;
            }
        }
    }

    async fn feed(&mut self, len: u64) -> anyhow::Result<()> {
        let chunk = input(&[0; CHUNK_LEN]);
        let (mut sent, mut consumed) = (0, 0);
        while sent < len {
            let part = (len - sent).min(CHUNK_LEN as u64);
            if sent + part > consumed + self.window {
                match self.next().await? {
                    StreamEvent::Consumed(offset) => consumed = offset,
                    StreamEvent::Exit => bail!("the program ended before its input"),
                    StreamEvent::Output(_) | StreamEvent::Other => {}
                }
            } else {
                // The channel byte and this part of the chunk.
                self.send(chunk.slice(..1 + usize::try_from(part)?)).await?;
                sent += part;
            }
        }
        self.end_input().await?;
        while !matches!(self.next().await?, StreamEvent::Exit) {}
        Ok(())
    }

    async fn end_input(&mut self) -> anyhow::Result<()> {
        self.send(input(&[])).await
    }

    async fn send(&mut self, message: Bytes) -> anyhow::Result<()> {
        self.socket.send(tungstenite::Message::Binary(message)).await.context("cannot send")
    }

    async fn next(&mut self) -> anyhow::Result<StreamEvent> {
        let bytes = match self.receive().await? {
            tungstenite::Message::Binary(bytes) => bytes,
            tungstenite::Message::Close(reason) => bail!("minionsd closed: {reason:?}"),
            // The library answers pings.
            _ => return Ok(StreamEvent::Other),
        };
        let message = ChannelMessage::decode(bytes)?;
        match message.channel {
            Channel::Stdout => Ok(StreamEvent::Output(message.payload.len() as u64)),
            Channel::Control => event(message.agent_control()?),
            Channel::Stdin | Channel::Stderr => Ok(StreamEvent::Other),
        }
    }

    async fn receive(&mut self) -> anyhow::Result<tungstenite::Message> {
        let message = timeout(DEADLINE, self.socket.next()).await;
        message
            .context("minionsd sends nothing")?
            .context("minionsd ended the connection")?
            .context("the WebSocket failed")
    }
}

fn input(payload: &'static [u8]) -> Bytes {
    ChannelMessage { channel: Channel::Stdin, payload: Bytes::from_static(payload) }.to_bytes()
}

fn event(control: AgentControl) -> anyhow::Result<StreamEvent> {
    match control {
        AgentControl::Ack { stdin } => Ok(StreamEvent::Consumed(stdin)),
        AgentControl::Exit(ended) => {
            let outcome = ended.outcome;
            ensure!(
                matches!(outcome, Outcome::Exited { code: 0 }),
                "the program failed: {outcome:?}"
            );
            Ok(StreamEvent::Exit)
        }
        AgentControl::Gap { .. } | AgentControl::Error(_) => {
            bail!("bytes were lost: {control:?}")
        }
        AgentControl::Heartbeat | AgentControl::Unknown => Ok(StreamEvent::Other),
    }
}
