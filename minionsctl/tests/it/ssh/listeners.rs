//! Listeners over SSH: ports and sockets of the guest that lead to the client (`ssh -R`, `ssh -A`).

use super::guest::SshGuest;
use super::programs::proxy_of;
use crate::shared::command::{Ran, Running};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use testkit::agent_process::AgentProcess;
use testkit::wait::until;

/// Returns a guest with the further VM `ports`, whose agent is a process.
async fn with_agent() -> (SshGuest, AgentProcess) {
    let ssh = SshGuest::start().await;
    let agent = AgentProcess::start(ssh.guest.daemon.sockets(), "ports", &[]);
    ssh.guest.daemon.until_state("ports", "ready").await;
    (ssh, agent)
}

fn echo<S: Read + Write>(mut stream: S) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).is_ok() {
        let _ = stream.write_all(&all);
    }
}

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

fn exchange(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts ssh with these options and a program that runs until the end of its input.
fn session(ssh: &SshGuest, options: &[&str]) -> Running {
    let fixed = ["-o", "ExitOnForwardFailure=yes"];
    let mut command =
        ssh.ssh(&[&fixed[..], options, &["ports.minions", "--", "echo up; cat"]].concat());
    let mut running = Running::start(command.stdin(Stdio::piped()));
    assert_eq!(running.line(), "up");
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_sockets_of_the_guest_lead_to_the_client() {
    let (ssh, _agent) = with_agent().await;
    let (target, port) = (echo_server(), free_port());
    let (here, there) = (ssh.guest.file("here.sock"), ssh.guest.file("there.sock"));
    let listener = UnixListener::bind(&here).unwrap();
    std::thread::spawn(move || echo(listener.accept().unwrap().0));
    let tcp = format!("{port}:localhost:{target}");
    let unix = format!("{}:{}", there.display(), here.display());
    let mut running = session(&ssh, &["-R", &tcp, "-R", &unix]);
    for number in 0..70 {
        let text = format!("connection {number}");
        assert_eq!(exchange(port, &text), text);
    }
    let long = "x".repeat(3_000_000);
    assert!(exchange(port, &long) == long);
    let mut programs: Vec<_> =
        (0..32).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for program in &mut programs {
        program.write_all(b"at once").unwrap();
        program.shutdown(Shutdown::Write).unwrap();
    }
    for program in &mut programs {
        let mut answer = String::new();
        program.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "at once");
    }
    let mut program = UnixStream::connect(&there).unwrap();
    program.write_all(b"socket").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    program.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "socket");
    drop(running.child.stdin.take());
    running.end().assert(0, "", "");
    until("nothing listens", || TcpStream::connect(("127.0.0.1", port)).is_err());
    until("the socket file is removed", || !there.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_port_is_printed_by_the_client_and_cancelled_on_request() {
    let (ssh, _agent) = with_agent().await;
    let target = echo_server();
    let control = ssh.guest.file("control");
    let control = control.to_str().unwrap();
    let mut master = session(&ssh, &["-M", "-S", control]);
    let ask = |args: &[&str]| {
        let shared = ["-o", "ProxyCommand=false", "-S", control];
        Ran::of(&mut ssh.ssh(&[&shared[..], args, &["ports.minions"]].concat()))
    };
    let chosen = ask(&["-O", "forward", "-R", &format!("0:localhost:{target}")]);
    let port: u16 = String::from_utf8(chosen.stdout).unwrap().trim().parse().unwrap();
    assert_eq!(exchange(port, "chosen"), "chosen");
    let mut open = TcpStream::connect(("127.0.0.1", port)).unwrap();
    open.write_all(b"still ").unwrap();
    let fixed = format!("{}:localhost:{target}", free_port());
    assert_eq!(ask(&["-O", "forward", "-R", &fixed]).code, 0);
    assert_eq!(ask(&["-O", "cancel", "-R", &fixed]).code, 0);
    let port_of_fixed: u16 = fixed.split_once(':').unwrap().0.parse().unwrap();
    until("the listener is closed", || TcpStream::connect(("127.0.0.1", port_of_fixed)).is_err());
    // The other listener, and its connection, continue.
    open.write_all(b"open").unwrap();
    open.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "still open");
    drop(master.child.stdin.take());
    assert_eq!(master.end().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_opened_or_a_refused_target_is_reported() {
    let (ssh, _agent) = with_agent().await;
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ["-o", "ExitOnForwardFailure=yes", "-R"];
    let run = |forward: &str| {
        Ran::of(&mut ssh.limited_ssh(&[&options[..], &[forward, "ports.minions", "true"]].concat()))
    };
    let in_use = format!("{}:localhost:1", used.local_addr().unwrap().port());
    run(&in_use).assert(255, "", "remote port forwarding failed").assert(255, "", "EADDRINUSE");
    run("*:0:localhost:1").assert(255, "", "--allow-forward");
    run("/nonexistent/x:/y").assert(255, "", "ENOENT");
    // The client connects to its target after it has accepted the channel.
    let (port, closed) = (free_port(), free_port());
    let mut running = session(&ssh, &["-R", &format!("{port}:localhost:{closed}")]);
    for _ in 0..70 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    drop(running.child.stdin.take());
    assert_eq!(running.end().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_leaves_no_listener_and_no_file() {
    let (ssh, _agent) = with_agent().await;
    let port = free_port();
    let there = ssh.guest.file("there.sock");
    let (tcp, unix) = (format!("{port}:localhost:1"), format!("{}:/nowhere", there.display()));
    let running = session(&ssh, &["-R", &tcp, "-R", &unix]);
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(there.exists());
    let proxy = proxy_of(running.child.id());
    rustix::process::kill_process(proxy, rustix::process::Signal::KILL).unwrap();
    until("nothing listens", || TcpStream::connect(("127.0.0.1", port)).is_err());
    until("the socket file is removed", || !there.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_returns_after_the_agent_was_killed() {
    let (ssh, agent) = with_agent().await;
    let (target, port) = (echo_server(), free_port());
    let forward = format!("{port}:localhost:{target}");
    let options = ["-N", "-o", "ExitOnForwardFailure=yes", "-R", &forward, "ports.minions"];
    let mut running = Running::start(&mut ssh.ssh(&options));
    until("the agent listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(exchange(port, "before"), "before");
    drop(agent);
    until("nothing listens", || TcpStream::connect(("127.0.0.1", port)).is_err());
    let _agent = AgentProcess::start(ssh.guest.daemon.sockets(), "ports", &[]);
    until("the agent listens again", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(exchange(port, "after"), "after");
    running.child.kill().unwrap();
}

/// An SSH agent with one key, of which the comment is `test-key`.
struct KeyAgent {
    process: Child,
    socket: PathBuf,
}

impl KeyAgent {
    fn start(ssh: &SshGuest) -> Self {
        let socket = ssh.guest.file("key-agent.sock");
        let mut process = Command::new("ssh-agent");
        let process =
            process.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { process, socket };
        until("ssh-agent listens", || UnixStream::connect(&agent.socket).is_ok());
        let key = ssh.guest.file("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test-key", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        let mut add = Command::new("ssh-add");
        let added =
            add.arg(&key).env("SSH_AUTH_SOCK", &agent.socket).stderr(Stdio::null()).status();
        assert!(added.unwrap().success());
        agent
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_the_guest_use_the_ssh_agent_of_the_client() {
    let (ssh, _agent) = with_agent().await;
    let keys = KeyAgent::start(&ssh);
    let run = |args: &[&str]| {
        let mut command = ssh.limited_ssh(args);
        Ran::of(command.env("SSH_AUTH_SOCK", &keys.socket))
    };
    run(&["-A", "ports.minions", "ssh-add -l"]).assert(0, "test-key", "");
    // Several connections, one after another and at the same time.
    let script = "for i in 1 2 3; do ssh-add -l & done; wait; ssh-add -l";
    let ran = run(&["-A", "ports.minions", script]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout).matches("test-key").count(), 4);
    let script = "echo $SSH_AUTH_SOCK; stat -c '%a %U' $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK)";
    let ran = run(&["-A", "ports.minions", script]);
    let text = String::from_utf8(ran.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[1..], ["600 root", "700 root"], "{text}");
    let directory = Path::new(lines[0]).parent().unwrap().to_owned();
    until("the directory is removed", || !directory.exists());
    // Without the option, programs have no agent.
    let none = run(&["ports.minions", "echo ${SSH_AUTH_SOCK-none}"]);
    none.assert(0, "none\n", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_the_ssh_agent_ends_with_a_killed_proxy() {
    let (ssh, _agent) = with_agent().await;
    let keys = KeyAgent::start(&ssh);
    let mut command =
        ssh.ssh(&["-A", "ports.minions", "--", "echo $SSH_AUTH_SOCK; exec sleep 1000"]);
    let mut running = Running::start(command.env("SSH_AUTH_SOCK", &keys.socket));
    let socket = PathBuf::from(running.line());
    assert!(socket.exists(), "{socket:?}");
    // Other users may not connect.
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ssh-add", "-l"]);
    let refused = other.env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert_ne!(refused.status.code(), Some(0), "{refused:?}");
    let proxy = proxy_of(running.child.id());
    rustix::process::kill_process(proxy, rustix::process::Signal::KILL).unwrap();
    until("the directory is removed", || !socket.parent().unwrap().exists());
    assert!(fs::symlink_metadata(&socket).is_err());
}
