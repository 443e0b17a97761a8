//! Forwards over the wire: connections to ports and sockets of the guest.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use bytes::{Bytes, BytesMut};
use minions_proto::channel::{Channel, ChannelMessage};
use minions_proto::forward::{CloseReason, ForwardHostControl, control};
use minions_proto::forward_client::{ForwardClient, ForwardEvent};
use minions_proto::frame::Decoder;
use minions_proto::message::{
    ForwardOpen, ForwardOpened, ReplyError, decode_reply, encode_request,
};
use minions_proto::{AgentError, ErrorCode};
use std::fs;
use std::net::TcpListener as StdListener;
use std::process::Command;
use std::time::Instant;
use support::channel::frame;
use support::{RunningAgent, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Open forward.
struct Forward {
    address: String,
    socket: UnixStream,
    decoder: Decoder,
    client: ForwardClient,
}

impl Forward {
    async fn open(agent: &RunningAgent, target: &str) -> Result<Self, AgentError> {
        let mut socket = agent.stream().await;
        let call = ForwardOpen { target: target.to_owned(), timeout_ms: None };
        socket.write_all(&encode_request(&call).unwrap()).await.unwrap();
        let mut decoder = Decoder::new();
        let payload = frame(&mut socket, &mut decoder).await.expect("a reply");
        match decode_reply::<ForwardOpened>(&payload) {
            Ok(ForwardOpened { address }) => {
                Ok(Self { address, socket, decoder, client: ForwardClient::new(Instant::now()) })
            }
            Err(ReplyError::Agent(error)) => Err(error),
            Err(other) => panic!("no reply: {other:?}"),
        }
    }

    async fn put(&mut self, message: ChannelMessage) {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        self.socket.write_all(&out).await.unwrap();
    }

    async fn send(&mut self, bytes: &[u8]) {
        let mut bytes = Bytes::copy_from_slice(bytes);
        while let Some(message) = self.client.send(&mut bytes) {
            self.put(message).await;
        }
    }

    async fn end(&mut self) {
        let end = self.client.end().unwrap();
        self.put(end).await;
    }

    /// Returns the next event other than a heartbeat; `None` once the agent has closed.
    async fn next(&mut self) -> Option<ForwardEvent> {
        loop {
            let payload = frame(&mut self.socket, &mut self.decoder).await?;
            let message = ChannelMessage::decode(payload).unwrap();
            match self.client.receive(message, Instant::now()).unwrap() {
                ForwardEvent::Heartbeat => {}
                event => return Some(event),
            }
        }
    }

    /// Reads the target's bytes up to their end.
    async fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.next().await.expect("an end") {
                ForwardEvent::Data(bytes) => all.extend_from_slice(&bytes),
                ForwardEvent::TargetEnded => return all,
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp:{}", listener.local_addr().unwrap());
    (listener, target)
}

/// Sends everything back, and ends its direction after the other one.
async fn echo(mut socket: TcpStream) {
    let (mut read, mut write) = socket.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

#[tokio::test]
async fn each_direction_ends_without_the_other() {
    let agent = RunningAgent::start().await;
    let (listener, target) = listener().await;
    // The host ends first; the target answers only after that.
    let mut forward = Forward::open(&agent, &target).await.unwrap();
    assert_eq!(format!("tcp:{}", forward.address), target);
    let (mut accepted, _) = listener.accept().await.unwrap();
    forward.send(b"question").await;
    forward.end().await;
    let mut question = String::new();
    accepted.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    accepted.write_all(b"answer").await.unwrap();
    accepted.shutdown().await.unwrap();
    assert_eq!(forward.read_to_end().await, b"answer");
    assert_eq!(forward.next().await, Some(ForwardEvent::Closed(CloseReason::Ended)));
    assert_eq!(forward.next().await, None);

    // The target ends first; the host still sends.
    let mut forward = Forward::open(&agent, &target).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    accepted.shutdown().await.unwrap();
    assert_eq!(forward.read_to_end().await, b"");
    forward.send(b"late").await;
    forward.end().await;
    let mut late = String::new();
    accepted.read_to_string(&mut late).await.unwrap();
    assert_eq!(late, "late");
    assert_eq!(forward.next().await, Some(ForwardEvent::Closed(CloseReason::Ended)));
}

#[tokio::test]
async fn megabytes_pass_in_both_directions_at_the_same_time() {
    let agent = RunningAgent::start().await;
    let (listener, target) = listener().await;
    tokio::spawn(async move { echo(listener.accept().await.unwrap().0).await });
    let mut forward = Forward::open(&agent, &target).await.unwrap();
    let data: Vec<u8> =
        (0..20_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut read, mut write) = forward.socket.into_split();
    let sent = Bytes::from(data.clone());
    tokio::spawn(async move {
        let (mut client, mut left) = (ForwardClient::new(Instant::now()), sent);
        while let Some(message) = client.send(&mut left) {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            write.write_all(&out).await.unwrap();
        }
        let mut out = BytesMut::new();
        client.end().unwrap().encode(&mut out);
        write.write_all(&out).await.unwrap();
        // Not closed before the last message of the agent.
        std::future::pending::<()>().await;
    });
    let mut echoed = Vec::new();
    'all: loop {
        while let Some(payload) = forward.decoder.next_frame().unwrap() {
            let message = ChannelMessage::decode(payload).unwrap();
            match forward.client.receive(message, Instant::now()).unwrap() {
                ForwardEvent::Data(bytes) => echoed.extend_from_slice(&bytes),
                ForwardEvent::TargetEnded | ForwardEvent::Heartbeat => {}
                ForwardEvent::Closed(reason) => {
                    assert_eq!(reason, CloseReason::Ended);
                    break 'all;
                }
                other @ ForwardEvent::Failed(_) => panic!("{other:?}"),
            }
        }
        assert!(read.read_buf(forward.decoder.read_buffer()).await.unwrap() > 0);
    }
    assert!(echoed == data, "{} bytes came back", echoed.len());
}

#[tokio::test]
async fn a_target_that_is_refused_forbidden_or_malformed_is_an_error_reply() {
    let agent = RunningAgent::start().await;
    let free = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = Forward::open(&agent, &format!("tcp:{free}")).await.err().unwrap();
    assert_eq!((refused.code, refused.errno), (Some(ErrorCode::ForwardFailed), Some(111)));
    assert!(refused.message.contains("ECONNREFUSED"), "{}", refused.message);
    let missing = agent.dir().join("missing.sock");
    let missing =
        Forward::open(&agent, &format!("unix:{}", missing.display())).await.err().unwrap();
    assert_eq!((missing.code, missing.errno), (Some(ErrorCode::ForwardFailed), Some(2)));
    for (target, code) in [
        ("tcp:10.0.0.1:80", ErrorCode::Forbidden),
        ("tcp:0.0.0.0:80", ErrorCode::Forbidden),
        ("tcp:example.org:80", ErrorCode::Forbidden),
        ("tcp:[fd00::1]:80", ErrorCode::Forbidden),
        ("tcp:127.0.0.1:0", ErrorCode::InvalidArgument),
        ("unix:relative", ErrorCode::InvalidArgument),
    ] {
        let error = Forward::open(&agent, target).await.err().unwrap();
        assert_eq!((error.code, error.field.as_deref()), (Some(code), Some("target")), "{target}");
    }
    let agent = RunningAgent::with_flags(&["--allow", "health,exec"]).await;
    let refused = Forward::open(&agent, "tcp:127.0.0.1:80").await.err().unwrap();
    assert_eq!(refused.code, Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn an_option_permits_more_targets() {
    let agent = RunningAgent::with_flags(&["--allow-forward", "0.0.0.0/32"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The kernel connects 0.0.0.0 to this machine.
    Forward::open(&agent, &format!("tcp:0.0.0.0:{port}")).await.unwrap();
    Forward::open(&agent, &format!("tcp:localhost:{port}")).await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_a_target() {
    let agent = RunningAgent::start().await;
    let path = agent.dir().join("service.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut forward = Forward::open(&agent, &format!("unix:{}", path.display())).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    accepted.write_all(b"hello").await.unwrap();
    drop(accepted);
    assert_eq!(forward.read_to_end().await, b"hello");
    forward.put(ForwardClient::leave()).await;
    assert_eq!(forward.next().await, Some(ForwardEvent::Closed(CloseReason::Left)));
}

#[tokio::test]
async fn a_silent_target_is_not_an_error_and_a_reset_is() {
    let agent = RunningAgent::start().await;
    let (listener, target) = listener().await;
    let mut forward = Forward::open(&agent, &target).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    // The first message of a silent target is the agent's heartbeat.
    let first = frame(&mut forward.socket, &mut forward.decoder).await.unwrap();
    assert_eq!(&first[1..], br#"{"type":"heartbeat"}"#);
    forward.put(ForwardClient::heartbeat()).await;
    // Closing with unread data resets the connection.
    forward.send(b"unread").await;
    assert_eq!(accepted.read(&mut [0]).await.unwrap(), 1);
    drop(accepted);
    let failed = forward.next().await.unwrap();
    assert!(
        matches!(&failed, ForwardEvent::Failed(error) if error.errno == Some(104)),
        "{failed:?}"
    );
    assert_eq!(forward.next().await, Some(ForwardEvent::Closed(CloseReason::Reset)));
    assert_eq!(forward.next().await, None);
}

#[tokio::test]
async fn a_violation_of_the_protocol_ends_the_forward() {
    let agent = RunningAgent::start().await;
    let (listener, target) = listener().await;
    let wrong = [
        ChannelMessage { channel: Channel::Stdout, payload: Bytes::from_static(b"x") },
        ChannelMessage { channel: Channel::Control, payload: Bytes::from_static(b"junk") },
    ];
    for message in wrong {
        let mut forward = Forward::open(&agent, &target).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        // Unknown control messages are no violation.
        forward.put(control(&ForwardHostControl::Unknown)).await;
        forward.put(message).await;
        assert!(matches!(forward.next().await, Some(ForwardEvent::Failed(_))));
        assert_eq!(forward.next().await, Some(ForwardEvent::Closed(CloseReason::Protocol)));
        assert_eq!(accepted.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn a_broken_connection_to_the_host_closes_the_target() {
    let mut agent = RunningAgent::start().await;
    let (listener, target) = listener().await;
    let forward = Forward::open(&agent, &target).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    drop(forward);
    assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 0);

    let _forward = Forward::open(&agent, &target).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    agent.child().kill().unwrap();
    assert_eq!(accepted.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

fn descriptors(agent: &RunningAgent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

#[tokio::test]
async fn many_forwards_leave_descriptors_as_before() {
    let agent = RunningAgent::start().await;
    let (listener, target) = listener().await;
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(echo(socket));
        }
    });
    let echoes = async |forward: &mut Forward| {
        forward.send(b"ping").await;
        let data = ForwardEvent::Data(Bytes::from_static(b"ping"));
        assert_eq!(forward.next().await, Some(data));
    };
    echoes(&mut Forward::open(&agent, &target).await.unwrap()).await;
    let before = until("the first forward has ended", async || {
        let now = descriptors(&agent);
        (now == descriptors(&agent)).then_some(now)
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(Forward::open(&agent, &target).await.unwrap());
    }
    for forward in &mut open {
        echoes(forward).await;
    }
    // Requests are still answered.
    agent.call(&minions_proto::message::HealthCheck {}).await.unwrap();
    drop(open);
    for _ in 0..2_000 {
        let mut forward = Forward::open(&agent, &target).await.unwrap();
        forward.send(b"x").await;
        forward.end().await;
        assert_eq!(forward.read_to_end().await, b"x");
        assert_eq!(forward.next().await, Some(ForwardEvent::Closed(CloseReason::Ended)));
    }
    until("all forwards are closed", async || (descriptors(&agent) <= before).then_some(())).await;
}

#[tokio::test]
async fn a_forward_beyond_the_limit_is_busy_until_another_one_ends() {
    // The limit follows from the number of descriptors: 384 are for everything else, and a forward has two.
    let agent = RunningAgent::with(|listen| {
        let mut command = Command::new("prlimit");
        command.args(["--nofile=392", "--", support::BINARY]);
        command.args(["--log-level", "error", "--listen", listen]);
        command
    })
    .await;
    let (listener, target) = listener().await;
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(echo(socket));
        }
    });
    // A failed attempt keeps no place.
    for _ in 0..8 {
        let refused = Forward::open(&agent, "tcp:192.0.2.1:1").await.err().unwrap();
        assert_eq!(refused.code, Some(ErrorCode::Forbidden), "{refused:?}");
    }
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(Forward::open(&agent, &target).await.unwrap());
    }
    let refused = Forward::open(&agent, &target).await.err().unwrap();
    assert_eq!(refused.code, Some(ErrorCode::Busy), "{refused:?}");
    assert!(refused.message.contains("limit of 4 forwards"), "{refused:?}");
    drop(open.pop());
    let mut next =
        until("a place is free", async || Forward::open(&agent, &target).await.ok()).await;
    next.send(b"ping").await;
    assert_eq!(next.next().await, Some(ForwardEvent::Data(Bytes::from_static(b"ping"))));
}
