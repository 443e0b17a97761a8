//! Listeners over the wire: connections from programs in the guest to the host.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use bytes::{Bytes, BytesMut};
use minions_proto::channel::{Channel, ChannelMessage};
use minions_proto::forward::CloseReason;
use minions_proto::forward_client::{ForwardClient, ForwardEvent};
use minions_proto::forward_listener::{ListenerClient, ListenerEvent, WaitingConnection};
use minions_proto::frame::Decoder;
use minions_proto::message::{
    Call, ForwardAccept, ForwardListen, ForwardListening, HealthCheck, ReplyError, decode_reply,
    encode_request,
};
use minions_proto::{AgentError, ErrorCode};
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;
use std::time::Instant;
use support::channel::frame;
use support::{RunningAgent, terminate, until};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// Connection to the agent in channel mode.
struct OpenStream {
    socket: UnixStream,
    decoder: Decoder,
}

impl OpenStream {
    async fn open<C: Call>(agent: &RunningAgent, call: &C) -> Result<(C::Reply, Self), AgentError> {
        let mut socket = agent.stream().await;
        socket.write_all(&encode_request(call).unwrap()).await.unwrap();
        let mut decoder = Decoder::new();
        let payload = frame(&mut socket, &mut decoder).await.expect("a reply");
        match decode_reply::<C::Reply>(&payload) {
            Ok(reply) => Ok((reply, Self { socket, decoder })),
            Err(ReplyError::Agent(error)) => Err(error),
            Err(other) => panic!("no reply: {other:?}"),
        }
    }

    async fn put(&mut self, message: ChannelMessage) {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        self.socket.write_all(&out).await.unwrap();
    }

    async fn next(&mut self) -> Option<ChannelMessage> {
        let payload = frame(&mut self.socket, &mut self.decoder).await?;
        Some(ChannelMessage::decode(payload).unwrap())
    }
}

struct Listener {
    listening: ForwardListening,
    stream: OpenStream,
    client: ListenerClient,
}

impl Listener {
    async fn open(agent: &RunningAgent, address: &str) -> Result<Self, AgentError> {
        Self::of_user(agent, address, None).await
    }

    async fn of_user(
        agent: &RunningAgent,
        address: &str,
        owner: Option<&str>,
    ) -> Result<Self, AgentError> {
        let owner = owner.map(str::to_owned);
        let call = ForwardListen { address: address.to_owned(), owner };
        let (listening, stream) = OpenStream::open(agent, &call).await?;
        Ok(Self { listening, stream, client: ListenerClient::new(Instant::now()) })
    }

    /// Returns the address without `tcp:` or `unix:`.
    fn address(&self) -> String {
        self.listening.address.to_string().split_once(':').unwrap().1.to_owned()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).unwrap()
    }

    /// Returns the next event other than a heartbeat; `None` once the agent has closed.
    async fn next(&mut self) -> Option<ListenerEvent> {
        loop {
            let message = self.stream.next().await?;
            match self.client.receive(&message, Instant::now()).unwrap() {
                ListenerEvent::Heartbeat => {}
                event => return Some(event),
            }
        }
    }

    async fn waiting(&mut self) -> WaitingConnection {
        match self.next().await {
            Some(ListenerEvent::Connection(waiting)) => waiting,
            other => panic!("{other:?}"),
        }
    }

    async fn accept(
        &self,
        agent: &RunningAgent,
        connection: u64,
    ) -> Result<(String, Taken), AgentError> {
        let call = ForwardAccept { listener: self.listening.listener.clone(), connection };
        let (opened, stream) = OpenStream::open(agent, &call).await?;
        let client = ForwardClient::new(Instant::now());
        Ok((opened.address, Taken { stream, client }))
    }

    /// Closes the listener, and waits until the agent has.
    async fn leave(mut self) {
        self.stream.put(ListenerClient::leave()).await;
        assert_eq!(self.next().await, Some(ListenerEvent::Closed(CloseReason::Left)));
        assert_eq!(self.next().await, None);
    }
}

/// Connection that was taken.
struct Taken {
    stream: OpenStream,
    client: ForwardClient,
}

impl Taken {
    async fn send(&mut self, bytes: &[u8]) {
        let mut bytes = Bytes::copy_from_slice(bytes);
        while let Some(message) = self.client.send(&mut bytes) {
            self.stream.put(message).await;
        }
    }

    async fn end(&mut self) {
        let end = self.client.end().unwrap();
        self.stream.put(end).await;
    }

    async fn next(&mut self) -> Option<ForwardEvent> {
        loop {
            let message = self.stream.next().await?;
            match self.client.receive(message, Instant::now()).unwrap() {
                ForwardEvent::Heartbeat => {}
                event => return Some(event),
            }
        }
    }

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

/// Reads to the end of a connection that must be reset.
#[track_caller]
fn assert_reset(mut stream: TcpStream) {
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn bytes_and_ends_of_a_taken_connection_go_both_ways() {
    let agent = RunningAgent::start().await;
    let mut listener = Listener::open(&agent, "tcp:localhost:0").await.unwrap();
    assert!(listener.address().starts_with("127.0.0.1:"), "{}", listener.address());
    let mut program = listener.connect();
    let waiting = listener.waiting().await;
    assert_eq!(waiting.peer, Some(program.local_addr().unwrap()));
    let (peer, mut taken) = listener.accept(&agent, waiting.connection).await.unwrap();
    assert_eq!(peer, program.local_addr().unwrap().to_string());
    program.write_all(b"question").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    assert_eq!(taken.read_to_end().await, b"question");
    // The other direction is still open, also when the listener has ended.
    listener.leave().await;
    taken.send(b"answer").await;
    taken.end().await;
    let mut answer = String::new();
    program.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(taken.next().await, Some(ForwardEvent::Closed(CloseReason::Ended)));
}

#[tokio::test]
async fn an_address_that_is_used_forbidden_or_malformed_is_an_error_reply() {
    let agent = RunningAgent::start().await;
    let listener = Listener::open(&agent, "tcp:127.0.0.1:0").await.unwrap();
    let used = format!("tcp:{}", listener.address());
    let refused = Listener::open(&agent, &used).await.err().unwrap();
    assert_eq!((refused.code, refused.errno), (Some(ErrorCode::ForwardFailed), Some(98)));
    assert!(refused.message.contains("EADDRINUSE"), "{}", refused.message);
    listener.leave().await;
    // Free again.
    Listener::open(&agent, &used).await.unwrap().leave().await;
    for (address, code) in [
        ("tcp:0.0.0.0:0", ErrorCode::Forbidden),
        ("tcp:10.0.0.1:80", ErrorCode::Forbidden),
        ("tcp:[::]:80", ErrorCode::Forbidden),
        ("tcp:example.org:80", ErrorCode::InvalidArgument),
        ("unix:relative", ErrorCode::InvalidArgument),
    ] {
        let error = Listener::open(&agent, address).await.err().unwrap();
        let field = error.field.as_deref();
        assert_eq!((error.code, field), (Some(code), Some("address")), "{address}");
    }
    let path = format!("unix:{}", agent.dir().join("x").display());
    let error = Listener::of_user(&agent, &path, Some("no-such-user")).await.err().unwrap();
    assert_eq!(error.code, Some(ErrorCode::UserNotFound));
    assert_eq!(error.field.as_deref(), Some("owner"));
    let agent = RunningAgent::with_flags(&["--allow", "health,exec"]).await;
    let refused = Listener::open(&agent, "tcp:localhost:0").await.err().unwrap();
    assert_eq!(refused.code, Some(ErrorCode::Forbidden));
    let agent = RunningAgent::with_flags(&["--allow-forward", "listen:0.0.0.0/32"]).await;
    Listener::open(&agent, "tcp:0.0.0.0:0").await.unwrap();
}

#[tokio::test]
async fn a_restricted_agent_listens_also_for_another_user_and_on_a_low_port() {
    let agent = RunningAgent::with_flags(&["--allow", "health,forward"]).await;
    fs::set_permissions(agent.dir(), Permissions::from_mode(0o777)).unwrap();
    let path = agent.dir().join("nobody.sock");
    let address = format!("unix:{}", path.display());
    let listener = Listener::of_user(&agent, &address, Some("nobody")).await.unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().uid(),
        fs::metadata("/proc/self").unwrap().uid() + 65_534
    );
    listener.leave().await;
    assert!(!path.exists());
    // Any free port below 1024.
    let free = (600..1024).find(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()).unwrap();
    Listener::open(&agent, &format!("tcp:127.0.0.1:{free}")).await.unwrap();
}

#[tokio::test]
async fn a_socket_file_has_one_user_and_is_removed_however_the_listener_ends() {
    let mut agent = RunningAgent::start().await;
    fs::set_permissions(agent.dir(), Permissions::from_mode(0o777)).unwrap();
    let path = agent.dir().join("app.sock");
    let address = format!("unix:{}", path.display());
    let mut listener = Listener::of_user(&agent, &address, Some("nobody:nogroup")).await.unwrap();
    assert_eq!(listener.listening.address.to_string(), address);
    let file = fs::metadata(&path).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (65_534, 65_534, 0o600));
    let mut program = StdUnixStream::connect(&path).unwrap();
    let waiting = listener.waiting().await;
    assert_eq!(waiting.peer, None);
    let (_, mut taken) = listener.accept(&agent, waiting.connection).await.unwrap();
    program.write_all(b"x").unwrap();
    drop(program);
    assert_eq!(taken.read_to_end().await, b"x");
    listener.leave().await;
    assert!(!path.exists(), "removed before the host is told");

    let listener = Listener::of_user(&agent, &address, Some("nobody")).await.unwrap();
    drop(listener);
    until("the file is removed", async || (!path.exists()).then_some(())).await;

    // Another file under the same name belongs to another process.
    let listener = Listener::open(&agent, &address).await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "other").unwrap();
    listener.leave().await;
    assert_eq!(fs::read(&path).unwrap(), b"other");
    fs::remove_file(&path).unwrap();

    let _listener = Listener::open(&agent, &address).await.unwrap();
    terminate(&mut agent).await;
    assert!(!path.exists(), "the agent removes it when it ends");
}

#[tokio::test]
async fn only_an_abandoned_socket_is_replaced() {
    let mut agent = RunningAgent::start().await;
    let path = agent.dir().join("app.sock");
    let address = format!("unix:{}", path.display());
    let mut listener = Listener::open(&agent, &address).await.unwrap();
    agent.crash().await;
    assert_eq!(listener.next().await, None);
    assert!(path.exists(), "a killed agent leaves the file");
    let listener = Listener::open(&agent, &address).await.unwrap();
    let used = Listener::open(&agent, &address).await.err().unwrap();
    assert_eq!((used.code, used.errno), (Some(ErrorCode::ForwardFailed), Some(98)));
    listener.leave().await;

    let live = StdUnixListener::bind(&path).unwrap();
    assert_eq!(Listener::open(&agent, &address).await.err().unwrap().errno, Some(98));
    drop(live);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "kept").unwrap();
    assert_eq!(Listener::open(&agent, &address).await.err().unwrap().errno, Some(98));
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

#[tokio::test]
async fn a_socket_of_a_user_is_created_with_the_rights_of_this_user() {
    let agent = RunningAgent::start().await;
    let listen = async |path: &Path| {
        let address = format!("unix:{}", path.display());
        Listener::of_user(&agent, &address, Some("nobody")).await
    };
    let closed = agent.dir().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(agent.dir(), Permissions::from_mode(0o755)).unwrap();
    let refused = listen(&closed.join("x.sock")).await.err().unwrap();
    assert_eq!((refused.code, refused.errno), (Some(ErrorCode::ForwardFailed), Some(13)));
    // The user leads the path to a directory of root.
    let open = agent.dir().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    symlink(&closed, open.join("link")).unwrap();
    assert_eq!(listen(&open.join("link/x.sock")).await.err().unwrap().errno, Some(13));
    // The user replaces a directory of the path while the listener exists.
    let own = open.join("own");
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, Permissions::from_mode(0o777)).unwrap();
    let listener = listen(&own.join("x.sock")).await.unwrap();
    fs::rename(&own, open.join("moved")).unwrap();
    fs::rename(open.join("moved/x.sock"), closed.join("x.sock")).unwrap();
    symlink(&closed, &own).unwrap();
    listener.leave().await;
    assert!(closed.join("x.sock").exists(), "the user may not remove files of this directory");
}

#[tokio::test]
async fn a_private_socket_has_a_directory_that_only_its_owner_may_enter() {
    let agent = RunningAgent::start().await;
    let listener = Listener::of_user(&agent, "private:agent", Some("nobody")).await.unwrap();
    let other = Listener::of_user(&agent, "private:agent", Some("nobody")).await.unwrap();
    let path = listener.address();
    assert_ne!(path, other.address());
    let path = Path::new(&path);
    let directory = path.parent().unwrap();
    let owned = |file: &Path| {
        let file = fs::metadata(file).unwrap();
        (file.uid(), file.mode() & 0o777)
    };
    assert_eq!((owned(directory), owned(path)), ((65_534, 0o700), (65_534, 0o600)));
    assert_eq!(path.file_name().unwrap(), "agent");
    listener.leave().await;
    assert!(!directory.exists());
    drop(other);
}

#[tokio::test]
async fn private_directories_of_a_killed_agent_are_removed_by_the_next_one() {
    let mut agent = RunningAgent::start().await;
    let listener = Listener::open(&agent, "private:agent").await.unwrap();
    let abandoned = Path::new(&listener.address()).parent().unwrap().to_owned();
    // Another agent that runs keeps its socket.
    let second = RunningAgent::start().await;
    let mut live = Listener::open(&second, "private:agent").await.unwrap();
    agent.crash().await;
    assert!(abandoned.exists());
    Listener::open(&agent, "private:agent").await.unwrap().leave().await;
    assert!(!abandoned.exists());
    let _program = StdUnixStream::connect(live.address()).unwrap();
    // The check whether a socket is abandoned is no connection.
    assert_eq!(live.waiting().await.connection, 1);
    live.leave().await;
}

#[tokio::test]
async fn a_connection_that_the_host_does_not_take_is_reset() {
    let agent = RunningAgent::start().await;
    let mut listener = Listener::open(&agent, "tcp:localhost:0").await.unwrap();
    let refused = listener.connect();
    let number = listener.waiting().await.connection;
    listener.stream.put(ListenerClient::refuse(number)).await;
    // A number that does not wait is ignored.
    listener.stream.put(ListenerClient::refuse(number + 10)).await;
    assert_reset(refused);
    let gone = listener.accept(&agent, number).await.err().unwrap();
    assert_eq!(gone.code, Some(ErrorCode::ForwardFailed));
    assert!(gone.message.contains("does not wait"), "{}", gone.message);

    let first = listener.connect();
    let number = listener.waiting().await.connection;
    let (_, taken) = listener.accept(&agent, number).await.unwrap();
    assert!(listener.accept(&agent, number).await.is_err(), "taken twice");
    // The host's connection breaks: the program must not take the data for complete.
    drop(taken);
    assert_reset(first);

    let second = listener.connect();
    let number = listener.waiting().await.connection;
    let (_, mut taken) = listener.accept(&agent, number).await.unwrap();
    taken.stream.put(ForwardClient::leave()).await;
    assert_eq!(taken.next().await, Some(ForwardEvent::Closed(CloseReason::Left)));
    assert_reset(second);

    let third = listener.connect();
    let number = listener.waiting().await.connection;
    let id = listener.listening.listener.clone();
    listener.leave().await;
    assert_reset(third);
    // The id is not that of the next listener.
    let next = Listener::open(&agent, "tcp:localhost:0").await.unwrap();
    assert_ne!(next.listening.listener, id);
    let call = ForwardAccept { listener: id, connection: number };
    assert!(OpenStream::open(&agent, &call).await.is_err());
}

#[tokio::test]
async fn a_violation_of_the_protocol_ends_the_listener() {
    let agent = RunningAgent::start().await;
    let wrong = [
        ChannelMessage { channel: Channel::Stdin, payload: Bytes::from_static(b"x") },
        ChannelMessage { channel: Channel::Control, payload: Bytes::from_static(b"junk") },
    ];
    for message in wrong {
        let mut listener = Listener::open(&agent, "tcp:localhost:0").await.unwrap();
        let unknown = Bytes::from_static(br#"{"type":"later"}"#);
        // Unknown control messages are no violation.
        listener.stream.put(ChannelMessage { channel: Channel::Control, payload: unknown }).await;
        let waiting = listener.connect();
        listener.waiting().await;
        listener.stream.put(message).await;
        assert!(matches!(listener.next().await, Some(ListenerEvent::Failed(_))));
        assert_eq!(listener.next().await, Some(ListenerEvent::Closed(CloseReason::Protocol)));
        assert_reset(waiting);
    }
}

fn descriptors(agent: &RunningAgent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

#[tokio::test]
async fn many_connections_leave_descriptors_as_before_and_the_limits_recover() {
    let agent = RunningAgent::start().await;
    agent.call(&HealthCheck {}).await.unwrap();
    let before = until("the health check's connection has ended", async || {
        let now = descriptors(&agent);
        (now == descriptors(&agent)).then_some(now)
    })
    .await;
    let mut listener = Listener::open(&agent, "tcp:localhost:0").await.unwrap();
    for _ in 0..300 {
        let mut program = listener.connect();
        let number = listener.waiting().await.connection;
        let (_, mut taken) = listener.accept(&agent, number).await.unwrap();
        program.shutdown(Shutdown::Write).unwrap();
        taken.end().await;
        assert_eq!(taken.read_to_end().await, b"");
        assert_eq!(taken.next().await, Some(ForwardEvent::Closed(CloseReason::Ended)));
        assert_eq!(program.read(&mut [0; 1]).unwrap(), 0);
    }
    // More than may wait: the others stay in the kernel's queue, and come in their turn.
    let programs: Vec<_> = (0..100).map(|_| listener.connect()).collect();
    let mut taken = Vec::new();
    for _ in &programs {
        let number = listener.waiting().await.connection;
        taken.push(listener.accept(&agent, number).await.unwrap());
    }
    agent.call(&HealthCheck {}).await.unwrap();
    drop(taken);
    programs.into_iter().for_each(assert_reset);
    listener.leave().await;
    until("all connections are closed", async || (descriptors(&agent) <= before).then_some(()))
        .await;

    let mut listeners = Vec::new();
    for _ in 0..64 {
        listeners.push(Listener::open(&agent, "tcp:localhost:0").await.unwrap());
    }
    let busy = Listener::open(&agent, "tcp:localhost:0").await.err().unwrap();
    assert_eq!(busy.code, Some(ErrorCode::Busy));
    drop(listeners);
    until("a listener can be opened again", async || {
        Listener::open(&agent, "tcp:localhost:0").await.ok()
    })
    .await;
}
