//! `minionsctl forward -R`, with a daemon and the agent as a process: a listener "in the guest" is one on this machine.

use crate::shared::command::{Ran, Running, ctl};
use crate::shared::process;
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use testkit::agent_process::AgentProcess;
use testkit::daemon::TestDaemon;
use testkit::wait::until;

struct Guest {
    daemon: TestDaemon,
    agent: AgentProcess,
    dir: TempDir,
}

impl Guest {
    async fn start() -> Self {
        let daemon = TestDaemon::start().await;
        let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
        daemon.until_state("web-1", "ready").await;
        Self { daemon, agent, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts `minionsctl forward` with these arguments, and returns the addresses of its listeners.
    fn forward(&self, args: &[&str], listeners: usize) -> (Running, Vec<String>) {
        let args = [&["-o", "json", "forward", "web-1"], args].concat();
        let mut running = Running::start(&mut ctl(&self.daemon.host(), &args));
        let listen = (0..listeners).map(|_| {
            let line: Value = serde_json::from_str(&running.line()).unwrap();
            line["listen"].as_str().unwrap().to_owned()
        });
        let listen = listen.collect();
        (running, listen)
    }
}

/// Answers each connection with what it sent, after its end.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || echo(stream.unwrap()));
        }
    });
    port
}

fn echo<S: Read + Write>(mut stream: S) {
    let mut all = Vec::new();
    // A connection that is reset has no answer.
    if stream.read_to_end(&mut all).is_ok() {
        let _ = stream.write_all(&all);
    }
}

/// Sends bytes and their end, and returns the answer.
fn exchange(address: &str, text: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn assert_reset(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_sockets_in_the_guest_lead_to_ports_and_sockets_here() {
    let guest = Guest::start().await;
    let port = echo_server();
    let (here, there) = (guest.path("here.sock"), guest.path("there.sock"));
    let listener = UnixListener::bind(&here).unwrap();
    std::thread::spawn(move || echo(listener.accept().unwrap().0));
    let (to_port, to_socket) = (format!("0:{port}"), format!("0:{here}"));
    let from_socket = format!("{there}:127.0.0.1:{port}");
    let forwards = ["-R", &to_port, "-R", &to_socket, "-R", &from_socket, "-L", &to_port];
    let (running, listen) = guest.forward(&forwards, 4);
    // The listeners here are printed first.
    let [local, in_guest, unix_here, unix_there] = &listen[..] else { panic!("{listen:?}") };
    let megabyte = vec![7; 1024 * 1024];
    for address in [local, in_guest] {
        assert_eq!(exchange(address, b"over a port"), b"over a port");
        assert_eq!(exchange(address, &megabyte), megabyte);
    }
    assert_eq!(exchange(unix_here, b"to a socket"), b"to a socket");
    assert_eq!(unix_there, &there);
    let mut program = UnixStream::connect(&there).unwrap();
    program.write_all(b"over a socket").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    program.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "over a socket");
    running.signal(Signal::TERM);
    running.end().assert(143, "", "");
    until("nothing listens in the guest", || TcpStream::connect(in_guest).is_err());
    until("the socket file is removed", || !Path::new(&there).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_in_the_guest_reaches_a_server_here() {
    let guest = Guest::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        stream.write_all(reply).unwrap();
    });
    let forward = format!("0:{port}");
    let (_running, listen) = guest.forward(&["-R", &forward], 1);
    let url = format!("http://{}/", listen[0]);
    let curl = Command::new("curl").args(["-sS", "--max-time", "60", &url]).output().unwrap();
    assert_eq!((curl.status.code(), &curl.stdout[..]), (Some(0), &b"hello"[..]), "{curl:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_resets_the_connection_and_is_reported_once() {
    let guest = Guest::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (forward, missing) = (format!("0:{closed}"), format!("0:{}", guest.path("missing")));
    let (running, listen) = guest.forward(&["-R", &forward, "-R", &missing], 2);
    for _ in 0..3 {
        assert_reset(&listen[0]);
    }
    assert_reset(&listen[1]);
    running.signal(Signal::TERM);
    let ran = running.end();
    ran.assert(143, "", "Connection refused").assert(143, "", "No such file");
    assert_eq!(ran.stderr.matches("Connection refused").count(), 1, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_on_one_side_does_not_look_complete_on_the_other() {
    let guest = Guest::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("0:{}", listener.local_addr().unwrap().port());
    let (_running, listen) = guest.forward(&["-R", &forward], 1);
    let mut program = TcpStream::connect(&listen[0]).unwrap();
    let mut server = listener.accept().unwrap().0;
    server.write_all(b"half").unwrap();
    program.write_all(b"two bytes").unwrap();
    server.read_exact(&mut [0; 1]).unwrap();
    // The kernel resets a connection that is closed with unread data.
    drop(server);
    let read = program.read_to_end(&mut Vec::new());
    assert!(read.is_err(), "{read:?}");

    let mut program = TcpStream::connect(&listen[0]).unwrap();
    let mut server = listener.accept().unwrap().0;
    server.write_all(b"unread").unwrap();
    program.write_all(b"half").unwrap();
    program.read_exact(&mut [0; 1]).unwrap();
    drop(program);
    let read = server.read_to_end(&mut Vec::new());
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_leave_nothing() {
    let guest = Guest::start().await;
    let port = echo_server();
    let forward = format!("0:{port}");
    let (running, listen) = guest.forward(&["-R", &forward], 1);
    exchange(&listen[0], b"x");
    let own = || fs::read_dir(format!("/proc/{}/fd", running.child.id())).unwrap().count();
    let before = (guest.agent.descriptors(), own());
    for number in 0..300_u32 {
        let text = number.to_string();
        assert_eq!(exchange(&listen[0], text.as_bytes()), text.as_bytes());
    }
    let mut programs: Vec<_> = (0..64).map(|_| TcpStream::connect(&listen[0]).unwrap()).collect();
    for (number, program) in programs.iter_mut().enumerate() {
        program.write_all(format!("at once {number}").as_bytes()).unwrap();
        program.shutdown(Shutdown::Write).unwrap();
    }
    for (number, program) in programs.iter_mut().enumerate() {
        let mut answer = String::new();
        program.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("at once {number}"));
    }
    drop(programs);
    until("all connections are closed", || {
        let now = (guest.agent.descriptors(), own());
        if now.0 <= before.0 && now.1 <= before.1 { Ok(()) } else { Err((before, now)) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_return_after_the_agent_was_killed() {
    let Guest { daemon, agent, dir } = Guest::start().await;
    let guest = Guest { daemon, agent, dir };
    let port = echo_server();
    let there = guest.path("there.sock");
    let (to_port, from_socket) = (format!("0:{port}"), format!("{there}:{port}"));
    let forwards = ["-R", &to_port, "-R", &from_socket, "-L", &to_port];
    let (running, listen) = guest.forward(&forwards, 3);
    let [local, in_guest, _] = &listen[..] else { panic!("{listen:?}") };
    assert_eq!(exchange(in_guest, b"before"), b"before");
    let Guest { daemon, agent, dir } = guest;
    // SIGKILL: the socket file stays.
    drop(agent);
    until("nothing listens", || TcpStream::connect(in_guest).is_err());
    assert!(Path::new(&there).exists());
    let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
    until("the listener is back", || TcpStream::connect(in_guest).is_ok());
    // The connection that the check made is reset or served; both do no harm.
    assert_eq!(exchange(in_guest, b"after"), b"after");
    let program = until("the socket is back", || UnixStream::connect(&there).ok());
    let mut program = program;
    program.write_all(b"after").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    program.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "after");
    assert_eq!(exchange(local, b"local"), b"local");
    running.signal(Signal::TERM);
    running.end().assert(143, "", "listening again");
    until("the socket file is removed", || !Path::new(&there).exists());
    drop((daemon, agent, dir));
}

#[test]
fn listeners_return_after_the_daemon_was_killed() {
    let dir =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let _agent = AgentProcess::start(dir.path(), "web-1", &[]);
    let mut daemon = process::start(dir.path());
    let forward = format!("0:{}", echo_server());
    let args = ["-o", "json", "forward", "web-1", "-R", &forward];
    let mut running = Running::start(&mut ctl(&daemon.host(), &args));
    let line: Value = serde_json::from_str(&running.line()).unwrap();
    let listen = line["listen"].as_str().unwrap();
    assert_eq!(exchange(listen, b"before"), b"before");
    daemon.end(Signal::KILL);
    until("nothing listens", || TcpStream::connect(listen).is_err());
    let _daemon = process::start(dir.path());
    until("the listener is back", || TcpStream::connect(listen).is_ok());
    assert_eq!(exchange(listen, b"after"), b"after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_command_leaves_no_listener_and_no_file() {
    let guest = Guest::start().await;
    let port = echo_server();
    let there = guest.path("there.sock");
    let (to_port, from_socket) = (format!("0:{port}"), format!("{there}:{port}"));
    let forwards = ["-R", &to_port, "-R", &from_socket, "--owner", "nobody"];
    // The owner must be able to create the file.
    fs::set_permissions(guest.dir.path(), Permissions::from_mode(0o777)).unwrap();
    let (mut running, listen) = guest.forward(&forwards, 2);
    assert!(Path::new(&there).exists());
    running.child.kill().unwrap();
    until("nothing listens in the guest", || TcpStream::connect(&listen[0]).is_err());
    until("the socket file is removed", || !Path::new(&there).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_opened_is_a_failure() {
    let guest = Guest::start().await;
    let run = |args: &[&str]| {
        Ran::of(&mut ctl(&guest.daemon.host(), &[&["forward", "web-1"], args].concat()))
    };
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{}:80", used.local_addr().unwrap().port());
    run(&["-R", &forward]).assert(1, "", "EADDRINUSE");
    run(&["-R", "0.0.0.0:0:80"]).assert(1, "", "--allow-forward");
    run(&["-R", "/nonexistent/x:80"]).assert(1, "", "ENOENT");
    run(&["-R", "80"]).assert(2, "", "such as 8080:3000");
    run(&[]).assert(2, "", "FORWARD");
    run(&["0:80", "--owner", "root"]).assert(2, "", "--remote");
}
