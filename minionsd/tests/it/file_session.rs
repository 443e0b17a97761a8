//! File sessions over a WebSocket, with the real agent.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use minions_proto::file_session::{
    MAX_CONTENT_LEN, MAX_DATA_LEN, OpenFile, PathRequest, ReadAt, SessionAnswer, SessionMessage,
    SessionOperation, SessionRequest, SessionResult, WriteAt,
};
use minions_proto::message::GuestPath;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use testkit::agent_process::AgentProcess;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wait::until;
use testkit::wire::framed;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Deadline for anything that happens at once on an idle machine.
const SOON: Duration = Duration::from_secs(60);

struct Guest {
    daemon: TestDaemon,
    agent: AgentProcess,
    dir: TempDir,
}

struct Session {
    socket: WebSocketStream<UnixStream>,
    next: u64,
}

impl Guest {
    async fn start() -> Self {
        // An operation whose daemon has gone ends after this time.
        let grace = Some(Duration::from_secs(2));
        let daemon = TestDaemon::with(|config| config.reattach_grace = grace).await;
        let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
        daemon.until_state("web-1", "ready").await;
        Self { daemon, agent, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn open(&self) -> Session {
        let stream = UnixStream::connect(self.daemon.unix_socket()).await.unwrap();
        let config = WebSocketConfig::default().max_frame_size(Some(MAX_CONTENT_LEN));
        let url = "ws://localhost/vms/web-1/files/session";
        let (socket, _) = client_async_with_config(url, stream, Some(config)).await.unwrap();
        Session { socket, next: 0 }
    }

    /// Returns the number of operations on files.
    fn operations(&self) -> usize {
        operations_of(self.agent.pid())
    }
}

/// Returns the number of the agent's processes for operations on files.
fn operations_of(agent: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{agent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children = lists.collect::<String>();
    let line = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_operation = |pid: &&str| line(pid).windows(7).any(|word| word == b"file-op");
    children.split_whitespace().filter(is_operation).count()
}

impl Session {
    async fn send(&mut self, operation: SessionOperation, data: &[u8]) {
        let request = SessionRequest { id: self.next, operation };
        self.next += 1;
        let message = SessionMessage::new(&request, Bytes::copy_from_slice(data)).unwrap();
        self.socket.send(Message::Binary(message.content())).await.unwrap();
    }

    async fn message(&mut self) -> Message {
        let next = timeout(SOON, self.socket.next()).await.expect("a message of the daemon");
        next.expect("an open WebSocket").unwrap()
    }

    /// Returns the next answer, which must be that of the request with this number.
    async fn answer(&mut self, number: u64) -> (SessionResult, Bytes) {
        loop {
            let Message::Binary(content) = self.message().await else { continue };
            if content.is_empty() {
                continue;
            }
            let message = SessionMessage::decode(content).unwrap();
            let SessionAnswer { id, result } = message.head().unwrap();
            assert_eq!(id, number);
            return (result, message.data);
        }
    }

    /// Returns the code and the reason of the daemon's Close frame.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(Some(CloseFrame { code, reason })) = self.message().await {
                return (code.into(), reason.as_str().to_owned());
            }
        }
    }
}

fn open(file: &Path) -> OpenFile {
    let path = GuestPath::new(file.as_os_str().as_encoded_bytes());
    OpenFile { path, read: true, ..OpenFile::default() }
}

fn read_all(handle: u32) -> SessionOperation {
    let length = u32::try_from(MAX_DATA_LEN).unwrap();
    SessionOperation::Read(ReadAt { handle, offset: 0, length })
}

fn realpath(path: &[u8]) -> SessionOperation {
    SessionOperation::Realpath(PathRequest { path: GuestPath::new(path) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_carries_requests_and_answers() {
    let guest = Guest::start().await;
    let mut session = guest.open().await;
    let file = guest.path("file");
    let create = OpenFile { write: true, create: true, ..open(&file) };
    session.send(SessionOperation::Open(create), b"").await;
    let data = vec![7; MAX_DATA_LEN];
    session.send(SessionOperation::Write(WriteAt { handle: 0, offset: 0 }), &data).await;
    session.send(read_all(0), b"").await;
    session.send(SessionOperation::Unknown, b"").await;
    assert_eq!(session.answer(0).await.0, SessionResult::Handle { handle: 0 });
    assert_eq!(session.answer(1).await.0, SessionResult::Done);
    assert!(session.answer(2).await.1 == data);
    let SessionResult::Failed(failure) = session.answer(3).await.0 else { panic!("no failure") };
    assert_eq!(failure.errno, "ENOSYS");
    assert_eq!(fs::metadata(&file).unwrap().len(), MAX_DATA_LEN as u64);
    assert_eq!(guest.operations(), 1);
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    session.socket.close(Some(goodbye)).await.unwrap();
    assert_eq!(session.closed().await.0, 1000);
    until("the process in the guest has ended", || guest.operations() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_stays_open_and_shows_that_it_is_alive() {
    let guest = Guest::start().await;
    let mut session = guest.open().await;
    for _ in 0..2 {
        assert_eq!(session.message().await, Message::Binary(Bytes::new()));
    }
    // A client may send signs of life as well.
    session.socket.send(Message::Binary(Bytes::new())).await.unwrap();
    session.send(realpath(b"/"), b"").await;
    assert!(matches!(session.answer(0).await.0, SessionResult::Path(_)));
}

/// More answers than all buffers on their way can hold: the guest waits, and no request is lost.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_the_client_reads_late_wait_in_the_guest() {
    let guest = Guest::start().await;
    fs::write(guest.path("file"), vec![7; MAX_DATA_LEN]).unwrap();
    let mut session = guest.open().await;
    session.send(SessionOperation::Open(open(&guest.path("file"))), b"").await;
    for _ in 0..400 {
        session.send(read_all(0), b"").await;
    }
    session.send(realpath(b"/"), b"").await;
    assert_eq!(session.answer(0).await.0, SessionResult::Handle { handle: 0 });
    for number in 1..=400 {
        assert_eq!(session.answer(number).await.1.len(), MAX_DATA_LEN, "{number}");
    }
    assert!(matches!(session.answer(401).await.0, SessionResult::Path(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disappears_ends_its_process() {
    let guest = Guest::start().await;
    let mut session = guest.open().await;
    session.send(realpath(b"/"), b"").await;
    session.answer(0).await;
    assert_eq!(guest.operations(), 1);
    drop(session);
    until("the process in the guest has ended", || guest.operations() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_of_the_protocol_ends_the_session_with_its_reason() {
    let guest = Guest::start().await;
    let too_long = Bytes::from(vec![0; MAX_CONTENT_LEN + 1]);
    for (message, code, reason) in [
        (Message::text("{}"), 1003, "messages must be binary"),
        (Message::Binary(vec![0, 0, 0, 9, b'{'].into()), 1002, "a message must have a head"),
        (Message::Binary(vec![0, 0, 0].into()), 1002, "a message must have a head"),
        (Message::Binary(too_long), 1009, "longer than 320 KiB"),
    ] {
        let mut session = guest.open().await;
        // The daemon may close before it has read all of a message that is too long.
        let _ = session.socket.send(message).await;
        let closed = session.closed().await;
        assert!(closed.0 == code && closed.1.starts_with(reason), "{closed:?}");
    }
    // The guest refuses a head without a number.
    let mut session = guest.open().await;
    let message = SessionMessage::new(&json!({ "op": "close" }), Bytes::new()).unwrap();
    session.socket.send(Message::Binary(message.content())).await.unwrap();
    assert_eq!(session.closed().await, (1011, "session_ended".to_owned()));
    until("the processes in the guest have ended", || guest.operations() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_opened_is_a_problem() {
    let guest = Guest::start().await;
    let path = "/vms/web-1/files/session";
    guest.daemon.get(path).await.assert_problem(400, "invalid_request").assert_field("Upgrade");
    let vm = FakeVmm::start(guest.daemon.sockets(), "web-2", Behaviour::Agent(agent().unwrap()));
    let _vm = vm.unwrap();
    guest.daemon.until_state("web-2", "ready").await;
    for (target, status) in [
        ("web-1/files/session?user=no-such-user", 422),
        ("web-1/files/session?timeout_ms=0", 400),
        ("web-1/files/session?path=/", 400),
        ("web-2/files/session", 501),
        ("nope/files/session", 404),
    ] {
        let stream = UnixStream::connect(guest.daemon.unix_socket()).await.unwrap();
        let url = format!("ws://localhost/vms/{target}");
        let refused = client_async_with_config(url, stream, None).await.unwrap_err();
        let tokio_tungstenite::tungstenite::Error::Http(response) = refused else {
            panic!("{target}: {refused}")
        };
        assert_eq!(response.status(), status, "{target}");
    }
}

/// An agent of an earlier version: its health reply lacks the feature.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_agent_is_reported_with_the_missing_feature() {
    let daemon = TestDaemon::start().await;
    let reply = json!({
        "status": "ok", "uptime_secs": 1, "hostname": "h",
        "agent": {
            "name": "n", "version": "v", "protocol": 2, "boot_id": "b", "instance_id": "i",
            "features": ["exec2", "files"], "allowed": ["health", "exec", "files"],
        },
    });
    let behaviour = Behaviour::Replies(framed(&reply));
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
    daemon.until_state("web-1", "ready").await;
    let stream = UnixStream::connect(daemon.unix_socket()).await.unwrap();
    let url = "ws://localhost/vms/web-1/files/session";
    let refused = client_async_with_config(url, stream, None).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = refused else {
        panic!("{refused}")
    };
    let problem: Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
    assert_eq!((response.status().as_u16(), &problem["code"]), (501, &json!("agent_too_old")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("file sessions, which sftp and scp need"), "{detail}");
}

/// A VM between the daemon and the agent, whose connections can be cut.
struct CutVmm {
    task: JoinHandle<()>,
    cut: Arc<Notify>,
}

impl CutVmm {
    fn start(socket: &Path, agent: PathBuf) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let cut = Arc::new(Notify::new());
        let cut_here = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            while let Ok((mut host, _)) = listener.accept().await {
                let (agent, cut) = (agent.clone(), Arc::clone(&cut_here));
                tokio::spawn(async move {
                    let mut guest = UnixStream::connect(agent).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut host, &mut guest) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self { task, cut }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_to_the_agent_loses_and_repeats_no_request() {
    let daemon = TestDaemon::start().await;
    let dir = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(dir.path(), "web-1", &[]);
    let socket = dir.path().join("web-1.vsock");
    until("the agent listens", || socket.exists());
    let vmm = CutVmm::start(&daemon.sockets().join("web-1.vsock"), socket);
    daemon.until_state("web-1", "ready").await;
    let guest = Guest { daemon, agent, dir };
    let file = guest.path("file");
    let mut session = guest.open().await;
    let append = OpenFile { write: true, create: true, append: true, ..open(&file) };
    session.send(SessionOperation::Open(append), b"").await;
    session.answer(0).await;
    let data = vec![7; 50_000];
    for round in 0..4_u64 {
        for _ in 0..100 {
            session.send(SessionOperation::Write(WriteAt { handle: 0, offset: 0 }), &data).await;
        }
        vmm.cut.notify_waiters();
        for number in 1..=100 {
            let answer = session.answer(round * 100 + number).await.0;
            assert_eq!(answer, SessionResult::Done);
        }
        assert_eq!(fs::metadata(&file).unwrap().len(), (round + 1) * 100 * data.len() as u64);
    }
    vmm.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_agent_ends_the_session() {
    let mut guest = Guest::start().await;
    let mut session = guest.open().await;
    session.send(realpath(b"/"), b"").await;
    session.answer(0).await;
    guest.agent = AgentProcess::start(guest.dir.path(), "another", &[]);
    assert_eq!(session.closed().await, (1011, "connection_lost".to_owned()));
}

/// The time of silence ends although the daemon shows every few seconds that it is alive itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_ends_an_idle_session() {
    let guest = Guest::start().await;
    let mut session = guest.open().await;
    session.send(realpath(b"/"), b"").await;
    session.answer(0).await;
    guest.agent.stop();
    session.send(realpath(b"/"), b"").await;
    assert_eq!(session.closed().await, (1011, "connection_lost".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_closes_the_session_and_its_process_ends() {
    let mut guest = Guest::start().await;
    let mut session = guest.open().await;
    session.send(realpath(b"/"), b"").await;
    session.answer(0).await;
    guest.daemon.ask_to_stop();
    assert_eq!(session.closed().await, (1012, "shutting_down".to_owned()));
    let Guest { daemon, agent, dir: _dir } = guest;
    timeout(SOON, daemon.stopped()).await.expect("the daemon stops");
    until("the process in the guest has ended", || operations_of(agent.pid()) == 0);
}
