//! `minionsctl fs` and `minionsctl forward`, with a daemon and the agent as a process.

use crate::shared::command::{Ran, Running, ctl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use tempfile::TempDir;
use testkit::agent_process::AgentProcess;
use testkit::daemon::TestDaemon;

struct Guest {
    daemon: TestDaemon,
    _agent: AgentProcess,
    dir: TempDir,
}

impl Guest {
    async fn start() -> Self {
        let daemon = TestDaemon::start().await;
        let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
        daemon.until_state("web-1", "ready").await;
        Self { daemon, _agent: agent, dir: tempfile::tempdir().unwrap() }
    }

    fn ctl(&self, args: &[&str]) -> std::process::Command {
        ctl(&self.daemon.host(), args)
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.ctl(args))
    }

    /// Returns `web-1:/PATH` for a file of the directory.
    fn file(&self, name: &str) -> String {
        format!("web-1:{}", self.path(name))
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_listed_printed_described_and_changed() {
    let guest = Guest::start().await;
    let file = |name: &str| guest.file(name);
    guest.run(&["fs", "mkdir", &file("a/b")]).assert(1, "", "No such file or directory");
    guest.run(&["fs", "mkdir", "-p", &file("a/b")]).assert(0, "", "");
    fs::write(guest.path("a/text"), b"one\n\x1b[31mtwo\n").unwrap();
    fs::write(guest.path("a/b/esc\x1bape"), "x").unwrap();

    let cat = guest.run(&["fs", "cat", &file("a/text")]);
    assert_eq!((cat.code, cat.stdout.as_slice()), (0, &b"one\n\x1b[31mtwo\n"[..]));
    guest.run(&["fs", "ls", &file("a")]).assert(0, "drwxr-xr-x", "").assert(0, "text", "");
    // A name of a guest cannot act on the terminal.
    guest.run(&["fs", "ls", &file("a/b")]).assert(0, "esc\\u{1b}ape", "");
    let stat = guest.run(&["-o", "json", "fs", "stat", &file("a/text")]).json();
    assert_eq!((&stat["type"], &stat["size"]), (&"file".into(), &13.into()));
    guest.run(&["fs", "stat", &file("none")]).assert(1, "", "No such file or directory");

    guest.run(&["fs", "mv", &file("a/text"), &guest.path("a/new")]).assert(0, "", "");
    guest.run(&["fs", "mv", "-n", &file("a/new"), &file("a/b")]).assert(1, "", "exists");
    guest.run(&["fs", "mv", &file("a/new"), "relative"]).assert(1, "", "absolute path");
    guest.run(&["fs", "rm", &file("a"), &file("a/new")]).assert(1, "", "not empty");
    assert!(!Path::new(&guest.path("a/new")).exists(), "the other file is removed");
    guest.run(&["fs", "rm", "-r", &file("a")]).assert(0, "", "");
    guest.run(&["fs", "cat", "/etc/hostname"]).assert(2, "", "must be VM:/PATH");
    guest.run(&["fs", "-u", "nobody", "cat", "web-1:/etc/shadow"]).assert(
        1,
        "",
        "Permission denied",
    );
}

/// Answers each client with what it sent, after the client's end.
/// Entries that are sorted together.
const SORTED: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_directory_is_listed_in_sorted_parts_below_one_header() {
    let guest = Guest::start().await;
    fs::create_dir(guest.path("many")).unwrap();
    for number in 0..2 * SORTED {
        fs::write(guest.path(&format!("many/{number:05}")), "").unwrap();
    }
    let listed = guest.run(&["fs", "ls", &format!("web-1:{}", guest.path("many"))]);
    let lines: Vec<_> = std::str::from_utf8(&listed.stdout).unwrap().lines().collect();
    assert_eq!(lines.len(), 2 * SORTED + 1);
    assert!(lines[0].ends_with("NAME"), "{}", lines[0]);
    let names: Vec<_> = lines[1..].iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert!(names[..SORTED].is_sorted() && names[SORTED..].is_sorted());
    let all: std::collections::BTreeSet<_> = names.into_iter().collect();
    assert_eq!(all.len(), 2 * SORTED);
}

fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_sockets_here_lead_to_a_port_in_the_guest() {
    let guest = Guest::start().await;
    let port = echo_server();
    let socket = guest.path("here.sock");
    let forwards = [format!("0:{port}"), format!("{socket}:127.0.0.1:{port}"), "0:1".to_owned()];
    let mut args = vec!["-o", "json", "forward", "web-1"];
    args.extend(forwards.iter().map(String::as_str));
    let mut running = Running::start(&mut guest.ctl(&args));
    let listen: Vec<String> = (0..3)
        .map(|_| {
            let line: Value = serde_json::from_str(&running.line()).unwrap();
            line["listen"].as_str().unwrap().to_owned()
        })
        .collect();
    for _ in 0..3 {
        let mut client = TcpStream::connect(&listen[0]).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }
    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(b"over a socket").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "over a socket");
    // Nothing listens on port 1: the connection is reset, and the reason is reported.
    let refused = TcpStream::connect(&listen[2]).unwrap().read(&mut [0; 1]);
    assert!(refused.is_err(), "{refused:?}");

    let pid = Pid::from_child(&running.child);
    kill_process(pid, Signal::TERM).unwrap();
    let mut stderr = String::new();
    running.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("Connection refused"), "{stderr}");
    assert_eq!(running.child.wait().unwrap().code(), Some(128 + 15));
    assert!(!Path::new(&socket).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_that_cannot_begin_is_a_failure() {
    let guest = Guest::start().await;
    guest.run(&["forward", "none", "0:80"]).assert(1, "", "no VM named none");
    // A caller who may only read is refused before anything listens.
    let mut reader = ctl(&guest.daemon.url(""), &["forward", "web-1", "0:80"]);
    Ran::of(reader.env_remove("MINIONS_TOKEN_FILE")).assert(1, "", "token");
    let used = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = TcpListener::bind(used).unwrap();
    guest.run(&["forward", "web-1", &format!("{}:80", used.port())]).assert(
        1,
        "",
        "cannot listen on",
    );
    drop(listener);
    guest.run(&["forward", "web-1", "80"]).assert(2, "", "such as 8080:80");
    fs::write(guest.path("file"), "").unwrap();
    let over_a_file = format!("{}:80", guest.path("file"));
    guest.run(&["forward", "web-1", &over_a_file]).assert(1, "", "cannot listen on");
    assert!(Path::new(&guest.path("file")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_the_guest_does_not_look_complete() {
    let guest = Guest::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"half").unwrap();
        // The kernel resets a connection that is closed with unread data.
        stream.read_exact(&mut [0; 1]).unwrap();
    });
    let mut running =
        Running::start(&mut guest.ctl(&["-o", "json", "forward", "web-1", &format!("0:{port}")]));
    let line: Value = serde_json::from_str(&running.line()).unwrap();
    let mut client = TcpStream::connect(line["listen"].as_str().unwrap()).unwrap();
    client.write_all(b"two bytes").unwrap();
    let read = client.read_to_end(&mut Vec::new());
    assert!(read.is_err(), "{read:?}");
}
