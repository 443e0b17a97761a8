//! A minionsd that sends exactly what a test scripts.

use futures_util::{SinkExt, StreamExt};
use minions_proto::channel::{AgentControl, Channel, ChannelMessage, Ended, HostControl};
use minions_proto::message::{Outcome, Usage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// Listening socket of the scripted daemon.
pub(crate) struct Listener(TcpListener);

/// Daemon's end of one WebSocket.
pub(crate) struct Peer(WebSocketStream<TcpStream>);

impl Listener {
    pub(crate) async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn host(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// Accepts the next WebSocket, and returns it with its first message.
    pub(crate) async fn peer(&self) -> (Peer, Value) {
        let (stream, _) = self.0.accept().await.unwrap();
        let mut peer = Peer(accept_async(stream).await.unwrap());
        let first = peer.0.next().await.unwrap().unwrap();
        (peer, serde_json::from_str(first.to_text().unwrap()).unwrap())
    }

    /// Answers the next HTTP request with these pieces, and returns its head.
    pub(crate) async fn answer(&self, pieces: &[&str]) -> String {
        let (mut stream, head) = self.request().await;
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        head
    }

    /// Answers the next HTTP request with `start`, then with `more` again and again until the client has gone or has
    /// taken `most` bytes. Returns the number of bytes that were sent.
    pub(crate) async fn flood(&self, start: &str, more: &str, most: usize) -> usize {
        let (mut stream, _) = self.request().await;
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut sent = 0;
        while sent < most && stream.write_all(more.as_bytes()).await.is_ok() {
            sent += more.len();
        }
        sent
    }

    /// Accepts the next connection, and reads one HTTP request with its body. Returns its head.
    async fn request(&self) -> (TcpStream, String) {
        let (mut stream, _) = self.0.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = Vec::new();
        loop {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return (stream, head.to_owned());
            }
        }
    }
}

impl Peer {
    pub(crate) async fn text(&mut self, json: &Value) {
        self.0.send(WsMessage::text(json.to_string())).await.unwrap();
    }

    /// Sends an `AttachReply` as at the beginning of a stream, with `fields` overridden.
    pub(crate) async fn attached(&mut self, fields: &Value) {
        let mut json = json!({
            "status": "ok", "id": "x", "created": true, "pid": 1, "stdout": 0, "stderr": 0,
            "stdin": 0, "stdin_acked": 0, "stdin_window": 100, "stdin_closed": false,
        });
        json.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.text(&json).await;
    }

    async fn send(&mut self, message: &ChannelMessage) {
        self.0.send(WsMessage::Binary(message.to_bytes())).await.unwrap();
    }

    pub(crate) async fn stdout(&mut self, bytes: &'static str) {
        self.send(&ChannelMessage { channel: Channel::Stdout, payload: bytes.into() }).await;
    }

    pub(crate) async fn control(&mut self, control: &AgentControl) {
        self.send(&ChannelMessage::agent(control)).await;
    }

    /// Sends the same control message until the client has gone.
    pub(crate) async fn flood(&mut self, control: &AgentControl) {
        let message = WsMessage::Binary(ChannelMessage::agent(control).to_bytes());
        while self.0.send(message.clone()).await.is_ok() {}
    }

    pub(crate) async fn exit(&mut self, code: i32) {
        let outcome = Outcome::Exited { code };
        self.control(&AgentControl::Exit(Ended { outcome, usage: Usage::default() })).await;
    }

    pub(crate) async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.0.close(Some(frame)).await.unwrap();
    }

    /// Returns the next message; `None` at a Close frame. Skips acks of offset 0, which only declare that the client
    /// acknowledges.
    pub(crate) async fn hear(&mut self) -> Option<ChannelMessage> {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                WsMessage::Binary(bytes) => {
                    let message = ChannelMessage::decode(bytes).unwrap();
                    let nothing = HostControl::Ack { stdout: 0, stderr: 0 };
                    if message.host_control().ok() != Some(nothing) {
                        return Some(message);
                    }
                }
                WsMessage::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Returns the next control message.
    pub(crate) async fn hear_control(&mut self) -> HostControl {
        self.hear().await.unwrap().host_control().unwrap()
    }

    /// Returns `len` bytes of input, or fewer if the input ends before.
    pub(crate) async fn input(&mut self, len: usize) -> Vec<u8> {
        let mut input = Vec::new();
        while input.len() < len {
            let message = self.hear().await.unwrap();
            if message.channel != Channel::Stdin {
                continue;
            }
            if message.payload.is_empty() {
                break;
            }
            input.extend_from_slice(&message.payload);
        }
        input
    }
}
