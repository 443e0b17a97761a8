//! Listening sockets in a guest, with the real agent.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::os::unix::net::UnixStream as StdUnixStream;
use testkit::agent_process::AgentProcess;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

struct Guest {
    daemon: TestDaemon,
    agent: AgentProcess,
}

type ListenerSocket = WebSocketStream<UnixStream>;

impl Guest {
    async fn start() -> Self {
        let daemon = TestDaemon::start().await;
        let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
        daemon.until_state("web-1", "ready").await;
        Self { daemon, agent }
    }

    /// Listens in the guest. Returns the WebSocket and its first message.
    async fn listen(&self, query: &str) -> (ListenerSocket, Value) {
        let stream = UnixStream::connect(self.daemon.unix_socket()).await.unwrap();
        let url = format!("ws://localhost/vms/web-1/forward/listen?{query}");
        let (mut socket, _) = client_async(url, stream).await.unwrap();
        let first = next(&mut socket).await;
        assert_eq!(first["type"], "listening", "{first}");
        (socket, first)
    }

    /// Sends the request for a connection as plain bytes, and returns the status and the connection after the head.
    async fn accept(&self, listener: &Value, connection: &Value) -> (u16, UnixStream) {
        let mut stream = UnixStream::connect(self.daemon.unix_socket()).await.unwrap();
        let listener = listener.as_str().unwrap();
        let head = format!(
            "GET /vms/web-1/forward/accept?listener={listener}&connection={connection} HTTP/1.1\r\nhost: x\r\n\
             connection: upgrade\r\nupgrade: tcp\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (String::from_utf8_lossy(&head)[9..12].parse().unwrap(), stream)
    }
}

/// Returns the next message other than a heartbeat.
async fn next(socket: &mut ListenerSocket) -> Value {
    loop {
        let Message::Text(text) = socket.next().await.unwrap().unwrap() else { panic!("not text") };
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["type"] != "heartbeat" {
            return message;
        }
    }
}

/// Returns the code and the reason of the Close frame.
async fn close(socket: &mut ListenerSocket) -> (u16, String) {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Close(frame) => {
                let frame = frame.unwrap();
                return (frame.code.into(), frame.reason.as_str().to_owned());
            }
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Connects to the address of the message `listening`, as a program in the guest does.
fn connect(listening: &Value) -> StdTcpStream {
    let address = listening["address"].as_str().unwrap();
    StdTcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_a_program_is_reported_and_taken() {
    let guest = Guest::start().await;
    let (mut socket, listening) = guest.listen("address=tcp:localhost:0").await;
    let mut program = connect(&listening);
    let waiting = next(&mut socket).await;
    assert_eq!(waiting["type"], "connection", "{waiting}");
    assert_eq!(waiting["peer"], program.local_addr().unwrap().to_string());
    let (status, mut taken) = guest.accept(&listening["listener"], &waiting["connection"]).await;
    assert_eq!(status, 101);
    program.write_all(b"question").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    taken.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    // Connections that were taken continue after the listener.
    socket.send(Message::text(r#"{"type":"leave"}"#)).await.unwrap();
    assert_eq!(close(&mut socket).await, (1000, String::new()));
    taken.write_all(b"answer").await.unwrap();
    taken.shutdown().await.unwrap();
    let mut answer = String::new();
    program.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(guest.accept(&listening["listener"], &waiting["connection"]).await.0, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_and_the_end_of_the_client_reset_what_waits() {
    let guest = Guest::start().await;
    let path = guest.daemon.sockets().join("in-guest.sock");
    let (mut socket, listening) = guest.listen("address=tcp:localhost:0").await;
    let (unix, _) = guest.listen(&format!("address=unix:{}&owner=root", path.display())).await;
    let mut refused = connect(&listening);
    let number = next(&mut socket).await["connection"].clone();
    let refuse = format!(r#"{{"type":"refuse","connection":{number}}}"#);
    socket.send(Message::text(refuse)).await.unwrap();
    let error = refused.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut waiting = connect(&listening);
    next(&mut socket).await;
    StdUnixStream::connect(&path).unwrap();
    // Both connections of the client end without a Close.
    drop((socket, unix));
    let error = waiting.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    until("the file is removed", || !path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_is_a_problem_that_names_the_field() {
    let guest = Guest::start().await;
    let problem = async |path: &str| {
        let stream = UnixStream::connect(guest.daemon.unix_socket()).await.unwrap();
        let url = format!("ws://localhost/vms/web-1/forward/{path}");
        match client_async(url, stream).await.unwrap_err() {
            Error::Http(response) => {
                let body: Value =
                    serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                (response.status().as_u16(), text("code"), text("field"))
            }
            other => panic!("{other}"),
        }
    };
    for (path, status, code, field) in [
        ("listen?address=8080", 422, "invalid_request", "address"),
        ("listen?address=tcp:localhost:0&owner=root", 422, "invalid_request", "owner"),
        ("listen?address=private:x&owner=no-such-user", 422, "user_not_found", "owner"),
        ("listen?address=tcp:10.0.0.1:80", 501, "agent_error", ""),
        ("listen?address=unix:/nonexistent/x", 502, "forward_failed", ""),
        ("listen", 400, "invalid_request", ""),
        ("accept?listener=A&connection=1", 422, "invalid_request", "listener"),
        ("accept?listener=a&connection=1", 502, "forward_failed", ""),
    ] {
        let (seen_status, seen_code, seen_field) = problem(path).await;
        assert_eq!((seen_status, seen_code.as_str()), (status, code), "{path}");
        assert!(field.is_empty() || seen_field == field, "{path}: {seen_field}");
    }
    let plain = "/vms/web-1/forward/listen?address=tcp:localhost:0";
    guest.daemon.get(plain).await.assert_problem(400, "invalid_request").assert_field("Upgrade");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_another_form_ends_the_listener() {
    let guest = Guest::start().await;
    for message in [Message::text("junk"), Message::binary("x")] {
        let (mut socket, listening) = guest.listen("address=tcp:localhost:0").await;
        socket.send(message).await.unwrap();
        assert_eq!(close(&mut socket).await.0, 1002);
        let address = listening["address"].as_str().unwrap().strip_prefix("tcp:").unwrap();
        until("nothing listens", || StdTcpStream::connect(address).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_may_not_forward_refuses() {
    let daemon = TestDaemon::start().await;
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent().unwrap()));
    daemon.until_state("web-1", "ready").await;
    let stream = UnixStream::connect(daemon.unix_socket()).await.unwrap();
    let url = "ws://localhost/vms/web-1/forward/listen?address=tcp:localhost:0";
    let Err(Error::Http(response)) = client_async(url, stream).await else { panic!() };
    let body: Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
    assert_eq!((response.status().as_u16(), &body["agent_code"]), (501, &"forbidden".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_guest_and_of_the_daemon_end_the_listener() {
    let guest = Guest::start().await;
    let (mut socket, _) = guest.listen("address=tcp:localhost:0").await;
    let Guest { daemon, agent } = guest;
    drop(agent);
    assert_eq!(close(&mut socket).await, (1011, "connection_lost".to_owned()));

    let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
    daemon.until_state("web-1", "ready").await;
    let guest = Guest { daemon, agent };
    let path = guest.daemon.sockets().join("in-guest.sock");
    let (mut socket, _) = guest.listen(&format!("address=unix:{}", path.display())).await;
    let Guest { daemon, agent } = guest;
    let stopping = tokio::spawn(daemon.stopped());
    assert_eq!(close(&mut socket).await, (1012, "shutting_down".to_owned()));
    drop(socket);
    stopping.await.unwrap();
    assert!(!path.exists());
    drop(agent);
}
