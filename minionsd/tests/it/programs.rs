//! Shared parts of the tests of programs: streams of lines, WebSockets, and programs that leave traces.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use minions_proto::channel::{AgentControl, Channel, ChannelMessage, HostControl};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use testkit::daemon::{DEADLINE, TestDaemon};
use testkit::wait::until_async;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Packet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Polls until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    until_async(what, async || condition()).await;
}

/// Waits until `file` contains a process id, and returns it.
pub(crate) async fn pid_in(file: &Path) -> u32 {
    until("the file contains a pid", || {
        fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Waits until a process has ended.
pub(crate) async fn gone(pid: u32) {
    until("the process has ended", || {
        // A zombie has ended, too.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    })
    .await;
}

/// Streamed response that is read line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Lines {
    /// Sends `POST path` and requests a stream.
    pub(crate) async fn post(daemon: &TestDaemon, path: &str, body: Value) -> Self {
        let request = daemon.http.post(daemon.url(path)).json(&body);
        let response = request.header("accept", "application/x-ndjson").send().await.unwrap();
        Self::of(response)
    }

    pub(crate) fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { response, buffer: Vec::new() }
    }

    /// Returns the next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match timeout(DEADLINE, self.response.chunk()).await.unwrap().unwrap() {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => {
                    assert!(self.buffer.is_empty(), "the stream ends with an incomplete line");
                    return None;
                }
            }
        }
    }

    /// Returns the next line that is not a heartbeat.
    pub(crate) async fn event(&mut self) -> Value {
        loop {
            let event = self.next().await.expect("the stream has another line");
            if event["type"] != "heartbeat" {
                return event;
            }
        }
    }

    /// Returns all remaining lines that are not heartbeats.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            if event["type"] != "heartbeat" {
                all.push(event);
            }
        }
        all
    }
}

/// Returns the bytes of one stream among the events, which must be contiguous from `offset` on.
pub(crate) fn bytes_of(events: &[Value], stream: &str, mut offset: u64) -> Vec<u8> {
    let mut all = Vec::new();
    for event in events.iter().filter(|event| event["type"] == stream) {
        assert_eq!(event["offset"], offset, "{event}");
        let bytes = match (event["data"].as_str(), event["data_base64"].as_str()) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(base64)) => STANDARD.decode(base64).unwrap(),
            both => panic!("{both:?}"),
        };
        offset += bytes.len() as u64;
        all.extend(bytes);
    }
    all
}

/// Client of `GET /vms/{vm}/exec`.
#[derive(Debug)]
pub(crate) struct Client(WebSocketStream<TcpStream>);

/// Code and reason of the daemon's close frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed(pub(crate) u16, pub(crate) String);

impl Client {
    pub(crate) async fn connect(daemon: &TestDaemon, vm: &str) -> Self {
        let stream = TcpStream::connect(daemon.address).await.unwrap();
        let url = format!("ws://{}/vms/{vm}/exec", daemon.address);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("authorization", daemon.bearer().parse().unwrap());
        Self(tokio_tungstenite::client_async(request, stream).await.unwrap().0)
    }

    /// Connects, sends the request, and returns the answer.
    pub(crate) async fn open(daemon: &TestDaemon, vm: &str, request: Value) -> (Self, Value) {
        let mut client = Self::connect(daemon, vm).await;
        client.text(&request.to_string()).await;
        let answer = client.answer().await;
        (client, answer)
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.0.send(Packet::text(text)).await.unwrap();
    }

    pub(crate) async fn raw(&mut self, bytes: Vec<u8>) {
        self.0.send(Packet::binary(bytes)).await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Value {
        match self.packet().await {
            Some(Packet::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn packet(&mut self) -> Option<Packet> {
        timeout(DEADLINE, self.0.next()).await.unwrap().transpose().unwrap()
    }

    pub(crate) async fn stdin(&mut self, bytes: &[u8]) {
        let payload = Bytes::copy_from_slice(bytes);
        self.send(ChannelMessage { channel: Channel::Stdin, payload }).await;
    }

    pub(crate) async fn control(&mut self, control: HostControl) {
        self.send(ChannelMessage::host(&control)).await;
    }

    async fn send(&mut self, message: ChannelMessage) {
        self.0.send(Packet::binary(message.to_bytes())).await.unwrap();
    }

    /// Returns the next message that is not a heartbeat or an ack, or the daemon's close frame.
    pub(crate) async fn message(&mut self) -> Result<ChannelMessage, Closed> {
        loop {
            let bytes = match self.packet().await {
                Some(Packet::Binary(bytes)) => bytes,
                Some(Packet::Close(Some(frame))) => {
                    return Err(Closed(frame.code.into(), frame.reason.to_string()));
                }
                other => panic!("{other:?}"),
            };
            let message = ChannelMessage::decode(bytes).unwrap();
            if message.channel == Channel::Control
                && matches!(
                    message.agent_control().unwrap(),
                    AgentControl::Heartbeat | AgentControl::Ack { .. }
                )
            {
                continue;
            }
            return Ok(message);
        }
    }

    /// Reads output until it contains `text`.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut all = String::new();
        while !all.contains(text) {
            let message = self.message().await.unwrap();
            all.push_str(std::str::from_utf8(&message.payload).unwrap());
        }
        all
    }

    /// Returns the standard output up to the end, the last control message, and the close frame.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, Value, Closed) {
        let (mut output, mut end) = (Vec::new(), json!(null));
        loop {
            match self.message().await {
                Ok(ChannelMessage { channel: Channel::Control, payload }) => {
                    end = serde_json::from_slice(&payload).unwrap();
                }
                Ok(ChannelMessage { channel: Channel::Stdout, payload }) => {
                    output.extend_from_slice(&payload);
                }
                // The order of the two outputs is not defined.
                Ok(_) => {}
                Err(closed) => return (output, end, closed),
            }
        }
    }

    /// Closes the WebSocket as a browser does.
    pub(crate) async fn close(mut self) {
        self.0.close(None).await.unwrap();
        while let Some(Ok(_)) = timeout(DEADLINE, self.0.next()).await.unwrap() {}
    }
}
