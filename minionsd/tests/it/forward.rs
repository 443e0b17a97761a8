//! Connections to ports and sockets in a guest, with the real agent.

use futures_util::{SinkExt, StreamExt};
use minions_proto::channel::{Channel, ChannelMessage};
use reqwest::Method;
use serde_json::Value;
use testkit::agent_process::AgentProcess;
use testkit::daemon::{TestDaemon, read};
use testkit::wait::{DEADLINE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

struct Guest {
    daemon: TestDaemon,
    agent: AgentProcess,
}

impl Guest {
    async fn start() -> Self {
        let daemon = TestDaemon::start().await;
        let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
        daemon.until_state("web-1", "ready").await;
        Self { daemon, agent }
    }

    /// Connects to a target, and returns the connection after the head of the answer.
    async fn connect(&self, target: &str) -> (u16, UnixStream) {
        let mut stream = UnixStream::connect(self.daemon.unix_socket()).await.unwrap();
        let head = format!(
            "GET /vms/web-1/forward?target={target} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let status = String::from_utf8_lossy(&head)[9..12].parse().unwrap();
        (status, stream)
    }
}

/// Serves one connection after another: reads to the end, then answers with what it read, and "!".
async fn echo_server() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("tcp:{}", listener.local_addr().unwrap());
    let serve = async |mut stream: TcpStream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).await.is_ok() {
            all.push(b'!');
            let _ = stream.write_all(&all).await;
        }
    };
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    (target, task)
}

#[tokio::test]
async fn bytes_and_ends_go_both_ways_over_an_upgraded_connection() {
    let guest = Guest::start().await;
    let (target, _server) = echo_server().await;
    let (status, mut stream) = guest.connect(&target).await;
    assert_eq!(status, 101);
    let sent = vec![7; 3_000_000];
    stream.write_all(&sent).await.unwrap();
    // The server answers only after the end of its input.
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), sent.len() + 1);
    assert_eq!(answer.last(), Some(&b'!'));
}

#[tokio::test]
async fn a_websocket_carries_channel_messages() {
    let guest = Guest::start().await;
    let (target, _server) = echo_server().await;
    let stream = UnixStream::connect(guest.daemon.unix_socket()).await.unwrap();
    let url = format!("ws://localhost/vms/web-1/forward?target={target}");
    let (mut client, _) = client_async(url, stream).await.unwrap();
    for payload in ["hello", ""] {
        let message = ChannelMessage { channel: Channel::Stdin, payload: payload.into() };
        client.send(Message::Binary(message.to_bytes())).await.unwrap();
    }
    let mut data = Vec::new();
    let mut ends = 0;
    let closed: Value = loop {
        let Message::Binary(bytes) = client.next().await.unwrap().unwrap() else { continue };
        let message = ChannelMessage::decode(bytes).unwrap();
        match message.channel {
            Channel::Stdout if message.payload.is_empty() => ends += 1,
            Channel::Stdout => data.extend_from_slice(&message.payload),
            Channel::Control => break serde_json::from_slice(&message.payload).unwrap(),
            Channel::Stdin | Channel::Stderr => panic!("{message:?}"),
        }
    };
    assert_eq!((data.as_slice(), ends), (&b"hello!"[..], 1));
    assert_eq!((&closed["type"], &closed["reason"]), (&"closed".into(), &"ended".into()));
    let Message::Close(Some(frame)) = client.next().await.unwrap().unwrap() else { panic!() };
    assert_eq!(u16::from(frame.code), 1000);
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_is_a_problem() {
    let guest = Guest::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (target, status, code) in [
        (format!("tcp:{closed}"), 502, "forward_failed"),
        ("unix:/nonexistent".to_owned(), 502, "forward_failed"),
        ("tcp:192.0.2.1:80".to_owned(), 501, "agent_error"),
        ("tcp:127.0.0.1".to_owned(), 422, "invalid_request"),
        ("udp:127.0.0.1:1".to_owned(), 422, "invalid_request"),
    ] {
        let (answered, mut stream) = guest.connect(&target).await;
        let mut body = vec![0; 2000];
        let len = stream.read(&mut body).await.unwrap();
        let problem: Value = serde_json::from_slice(&body[..len]).unwrap();
        assert_eq!((answered, &problem["code"]), (status, &code.into()), "{target}");
    }
    let path = format!("/vms/web-1/forward?target=tcp:{closed}");
    // Without `Connection: upgrade`, `Upgrade` is addressed to a proxy.
    let half = guest.daemon.request(Method::GET, &path).header("upgrade", "tcp").send().await;
    read(half.unwrap()).await.assert_problem(400, "invalid_request").assert_field("Upgrade");
    guest.daemon.get(&path).await.assert_problem(400, "invalid_request").assert_field("Upgrade");
}

#[tokio::test]
async fn connections_leave_no_descriptor_and_end_with_the_guest() {
    let guest = Guest::start().await;
    let (target, _server) = echo_server().await;
    let exchange = async || {
        let (status, mut stream) = guest.connect(&target).await;
        assert_eq!(status, 101);
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"!");
    };
    exchange().await;
    let before = guest.agent.descriptors();
    for _ in 0..100 {
        exchange().await;
    }
    until("the agent has closed all connections", || guest.agent.descriptors() <= before);

    let (_, mut stream) = guest.connect(&target).await;
    drop(guest.agent);
    let mut rest = Vec::new();
    // The end of the guest ends the connection, with an error or without.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_reboot_that_removes_the_socket_ends_connections_although_the_vmm_runs() {
    let guest = Guest::start().await;
    let (target, _server) = echo_server().await;
    let (_, mut stream) = guest.connect(&target).await;
    stream.write_all(b"abc").await.unwrap();
    // Cloud Hypervisor does so at each reboot. The process keeps its side of the connection open.
    std::fs::remove_file(guest.daemon.sockets().join("web-1.vsock")).unwrap();
    let mut rest = Vec::new();
    let ended = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!((ended.ok(), rest.as_slice()), (Some(0), b"".as_slice()));
    let vm = guest.daemon.get("/vms/web-1").await;
    assert_eq!(
        (&vm.json["state"], &vm.json["reason"]["failure"]),
        (&"unreachable".into(), &"rebooting".into())
    );
}
