//! The host's end of an exec stream, message by message.

use super::{RunningAgent, SOON};
use bytes::{Bytes, BytesMut};
use minions_proto::AgentError;
use minions_proto::channel::{
    AgentControl, Channel, ChannelMessage, Ended, HostControl, OutputStream,
};
use minions_proto::frame::Decoder;
use minions_proto::message::{Call, ExecAttached, ReplyError, decode_reply, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Open exec stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) attached: ExecAttached,
    socket: UnixStream,
    decoder: Decoder,
    /// Offset after the last received byte.
    stdout: u64,
    stderr: u64,
}

/// Everything received on a stream until its end.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Number of bytes that were reported as lost.
    pub(crate) lost: u64,
    pub(crate) ended: Option<Ended>,
    pub(crate) refusals: Vec<AgentError>,
}

impl Stream {
    /// Opens a stream with the request `call`.
    pub(crate) async fn open(agent: &RunningAgent, call: &impl Call) -> Result<Self, AgentError> {
        let mut socket = agent.stream().await;
        socket.write_all(&encode_request(call).unwrap()).await.unwrap();
        let mut decoder = Decoder::new();
        let payload = frame(&mut socket, &mut decoder).await.expect("a reply");
        match decode_reply(&payload) {
            Ok(attached) => {
                let ExecAttached { stdout, stderr, .. } = attached;
                Ok(Self { attached, socket, decoder, stdout, stderr })
            }
            Err(ReplyError::Agent(error)) => Err(error),
            Err(other) => panic!("no reply: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, channel: Channel, payload: &[u8]) {
        let mut out = BytesMut::new();
        ChannelMessage { channel, payload: Bytes::copy_from_slice(payload) }.encode(&mut out);
        self.socket.write_all(&out).await.unwrap();
    }

    pub(crate) async fn control(&mut self, control: HostControl) {
        let mut out = BytesMut::new();
        ChannelMessage::host(&control).encode(&mut out);
        self.socket.write_all(&out).await.unwrap();
    }

    /// Returns the next message; `None` once the agent has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<ChannelMessage> {
        let payload = frame(&mut self.socket, &mut self.decoder).await?;
        let message = ChannelMessage::decode(payload).unwrap();
        match message.channel {
            Channel::Stdout => self.stdout += message.payload.len() as u64,
            Channel::Stderr => self.stderr += message.payload.len() as u64,
            Channel::Control => {
                if let AgentControl::Gap { stream, to, .. } = message.agent_control().unwrap() {
                    match stream {
                        OutputStream::Stdout => self.stdout = to,
                        OutputStream::Stderr => self.stderr = to,
                    }
                }
            }
            Channel::Stdin => panic!("input from the agent"),
        }
        Some(message)
    }

    /// Returns the offset after the last received byte of standard output.
    pub(crate) fn stdout(&self) -> u64 {
        self.stdout
    }

    /// Returns the next output; skips other messages.
    pub(crate) async fn output(&mut self) -> Bytes {
        loop {
            let message = self.next().await.expect("output before the end");
            if matches!(message.channel, Channel::Stdout | Channel::Stderr) {
                return message.payload;
            }
        }
    }

    /// Reads output until it contains `text`, and returns it.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let so_far = String::from_utf8_lossy(&seen).into_owned();
            if so_far.contains(text) {
                return so_far;
            }
            seen.extend_from_slice(&self.output().await);
        }
    }

    /// Reads to the end of the stream or of the program, and acknowledges each message.
    pub(crate) async fn collect(mut self) -> Collected {
        let mut all = Collected::default();
        while let Some(message) = self.next().await {
            match message.channel {
                Channel::Stdout => all.stdout.extend_from_slice(&message.payload),
                Channel::Stderr => all.stderr.extend_from_slice(&message.payload),
                Channel::Stdin => {}
                Channel::Control => match message.agent_control().unwrap() {
                    AgentControl::Gap { from, to, .. } => all.lost += to - from,
                    AgentControl::Exit(ended) => all.ended = Some(ended),
                    AgentControl::Error(error) => all.refusals.push(error),
                    AgentControl::Heartbeat | AgentControl::Ack { .. } | AgentControl::Unknown => {}
                },
            }
            // The agent may have closed the connection after its last message.
            let mut out = BytesMut::new();
            let Self { stdout, stderr, .. } = self;
            ChannelMessage::host(&HostControl::Ack { stdout, stderr }).encode(&mut out);
            let _ = self.socket.write_all(&out).await;
            if all.ended.is_some() {
                break;
            }
        }
        all
    }

    /// Sends a request after the end of the stream, and returns its reply.
    pub(crate) async fn call<C: Call>(&mut self, call: &C) -> C::Reply {
        self.socket.write_all(&encode_request(call).unwrap()).await.unwrap();
        let payload = frame(&mut self.socket, &mut self.decoder).await.expect("a reply");
        decode_reply(&payload).unwrap()
    }

    /// Returns socket and decoder, for a test that reads and writes at the same time.
    pub(crate) fn into_parts(self) -> (UnixStream, Decoder) {
        (self.socket, self.decoder)
    }
}

pub(crate) async fn frame(socket: &mut UnixStream, decoder: &mut Decoder) -> Option<Bytes> {
    let read = async {
        loop {
            if let Some(payload) = decoder.next_frame().unwrap() {
                return Some(payload);
            }
            // A reset is an end, too: the agent closed while data was still in flight.
            if socket.read_buf(decoder.read_buffer()).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    };
    timeout(SOON, read).await.expect("something from the agent")
}
