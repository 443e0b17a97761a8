//! What the audit log says of operate calls, written by the real program.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod callers;

use callers::{GROUP, MEMBER, OTHER, ROOT, TOKEN, User, WRONG_TOKEN, Way, bearer, curl};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use testkit::daemon::DEADLINE;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Stands in an argument, and nowhere else.
const SECRET: &str = "swordfish-4711";

/// `minionsd` with a VM `web-1`.
struct Program {
    dir: TempDir,
    origin: String,
    _vm: FakeVmm,
    child: Child,
}

impl Program {
    async fn start() -> Self {
        callers::must_be_root();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("minionsd.toml"), format!("operator_group = '{GROUP}'")).unwrap();
        fs::write(path("token"), TOKEN).unwrap();
        fs::set_permissions(path("token"), Permissions::from_mode(0o600)).unwrap();
        let vm = Behaviour::Agent(agent().unwrap());
        let vm = FakeVmm::start(dir.path(), "web-1", vm).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_minionsd"));
        command.args(["--listen", "127.0.0.1:0", "--log-level", "debug"]);
        command.arg("--config").arg(path("minionsd.toml"));
        command.arg("--unix-socket").arg(path("minionsd.sock"));
        command.arg("--socket-dir").arg(dir.path());
        command.arg("--token-file").arg(path("token"));
        command.arg("--audit-log").arg(path("audit"));
        command.stdin(Stdio::null()).stderr(fs::File::create(path("log")).unwrap());
        let child = command.kill_on_drop(true).spawn().unwrap();
        let mut program = Self { dir, origin: String::new(), _vm: vm, child };
        program.origin = program.until("it serves", Self::origin_in_log).await;
        program
            .until("the VM is ready", |program| program.log().contains("ready").then_some(()))
            .await;
        program
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn end_of_log(&self) -> String {
        let log = self.log();
        log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    fn origin_in_log(&self) -> Option<String> {
        let log = self.log();
        let (_, address) = log.split_once("serving tcp=Some(")?;
        Some(format!("http://{}", address.split_once(')')?.0))
    }

    /// Waits until there is an answer.
    async fn until<T>(&self, what: &str, answer: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = answer(self) {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "never: {what}; it ended with: {}",
                self.end_of_log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn address(&self) -> &str {
        self.origin.strip_prefix("http://").unwrap()
    }

    /// TCP connections that the program still has.
    fn connections(&self) -> usize {
        let fds = format!("/proc/{}/fd", self.child.id().unwrap());
        let sockets =
            fs::read_dir(fds).unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        let sockets: Vec<_> = sockets.filter_map(|to| Some(to.to_str()?.to_owned())).collect();
        // `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        let listening = "0A";
        rows.filter(|row| row[3] != listening && sockets.contains(&format!("socket:[{}]", row[9])))
            .count()
    }

    /// The audit lines so far. One may be half written.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("audit")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn lines_of(&self, id: &str) -> Vec<Value> {
        let lines = self.lines().into_iter();
        lines.filter(|line| line["span"]["request_id"] == id).collect()
    }

    /// The fields of the one line about this request.
    async fn line(&self, id: &str) -> Value {
        self.until(&format!("an audit line about {id}"), |program| program.lines_of(id).pop()).await
            ["fields"]
            .clone()
    }

    async fn ask(&self, id: &str, user: User, method: &str, path: &str, more: &[&str]) -> u16 {
        let id = format!("X-Request-Id: {id}");
        let more = [&["--request", method, "--header", &id], more].concat();
        curl(user, Way::Tcp(&self.origin), path, &more).await.unwrap().status
    }
}

fn touch(marker: &std::path::Path) -> String {
    json!({ "command": "touch", "args": [marker] }).to_string()
}

/// Request id, caller, action, path, more arguments, and what the line has as identity and status.
type Row<'a> = (&'a str, User, &'a str, &'a str, &'a [&'a str], &'a str, u16);

#[tokio::test]
async fn every_operate_call_leaves_one_line_that_says_who_and_what() {
    let program = Program::start().await;
    let exec = json!({ "command": "true", "args": [SECRET, "x"] }).to_string();
    let (right, wrong) = (bearer(TOKEN), bearer(WRONG_TOKEN));
    let (exec, network) = (["--json", &exec], ["--json", r#"{"dns":["swordfish-4711"]}"#]);
    let right = [exec[0], exec[1], "--header", &right];
    let wrong = [exec[0], exec[1], "--header", &wrong];
    let (run, here) = ("POST /vms/{vm}/exec", "/vms/web-1/exec");
    let put = "PUT /vms/{vm}/network";
    let cases: [Row<'_>; 8] = [
        ("by-root", ROOT, run, here, &exec, "user", 200),
        ("by-member", MEMBER, run, here, &exec, "user", 200),
        ("by-other", OTHER, run, here, &exec, "user", 403),
        ("right-token", OTHER, run, here, &right, "token", 200),
        ("wrong-token", OTHER, run, here, &wrong, "user", 401),
        ("no-vm", ROOT, run, "/vms/gone/exec", &exec, "user", 404),
        ("no-json", ROOT, run, here, &["--json", "{"], "user", 400),
        ("network", ROOT, put, "/vms/web-1/network", &network, "user", 422),
    ];
    for (id, user, action, path, more, identity, status) in cases {
        let method = action.split(' ').next().unwrap();
        assert_eq!(program.ask(id, user, method, path, more).await, status, "{id}");
        let line = program.line(id).await;
        assert_eq!(program.lines_of(id).len(), 1, "{id}");
        let said = [&line["identity"], &line["uid"], &line["action"], &line["status"]];
        let expected = [&json!(identity), &json!(user.uid), &json!(action), &json!(status)];
        assert_eq!(said, expected, "{id}: {line}");
        assert_eq!(line["vm"], path.split('/').nth(2).unwrap(), "{id}");
        assert!(line["duration_ms"].is_u64(), "{id}: {line}");
    }
    // Two arguments, each behind its length.
    let digest = "da4c909fcd2cd530edc7cb923cac3a76c7b608f6da2dd079585cc7bf8eb0ebe3";
    for id in ["by-root", "by-member", "right-token"] {
        let line = program.line(id).await;
        assert_eq!(
            (&line["command"], &line["arguments_sha256"]),
            (&json!("\"true\""), &json!(digest))
        );
    }
}

#[tokio::test]
async fn a_read_leaves_no_line() {
    let program = Program::start().await;
    assert_eq!(program.ask("read", OTHER, "GET", "/vms/web-1/health", &[]).await, 200);
    assert_eq!(program.ask("late", OTHER, "POST", "/vms/web-1/exec", &["--json", "{}"]).await, 403);
    program.line("late").await;
    assert_eq!(program.lines_of("read"), Vec::<Value>::new());
}

#[tokio::test]
async fn neither_log_has_an_argument_or_a_token() {
    let program = Program::start().await;
    let (right, wrong) = (bearer(TOKEN), bearer(WRONG_TOKEN));
    let bodies = [
        json!({ "command": "echo", "args": [SECRET] }),
        json!({ "command": "/nowhere", "args": [SECRET] }),
        json!({ "command": "echo", "args": [SECRET], "more": SECRET }),
        json!({ "command": "echo", "args": { "no": SECRET } }),
        json!({ "command": "echo", "args": [format!("{SECRET}\0")] }),
    ];
    for (number, body) in bodies.iter().enumerate() {
        let body = body.to_string();
        for (name, shown) in [("right", right.as_str()), ("wrong", &wrong), ("none", "X-None: 0")] {
            let id = format!("{name}-{number}");
            let more = ["--json", &body, "--header", shown];
            program.ask(&id, ROOT, "POST", "/vms/web-1/exec", &more).await;
            program.line(&id).await;
        }
    }
    let audit = fs::read_to_string(program.path("audit")).unwrap();
    for (name, text) in [("audit", &audit), ("log", &program.log())] {
        for secret in [SECRET, TOKEN, WRONG_TOKEN] {
            assert!(!text.contains(secret), "the {name} has {secret}:\n{text}");
        }
    }
    let mode = fs::metadata(program.path("audit")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn who_hangs_up_while_a_program_runs_leaves_a_line_too() {
    let program = Program::start().await;
    let marker = program.path("marker");
    let script = format!("touch {}; exec sleep 600", marker.display());
    let body = json!({ "command": "sh", "args": ["-c", script] }).to_string();
    let mut stream = TcpStream::connect(program.address()).unwrap();
    stream.write_all(&request("hung-up", &body)).unwrap();
    program.until("the program runs", |_| marker.exists().then_some(())).await;
    drop(stream);
    let line = program.line("hung-up").await;
    assert_eq!((&line["identity"], &line["uid"]), (&json!("user"), &json!(0)));
    assert_eq!((&line["command"], &line["allowed"]), (&json!("\"sh\""), &json!(true)));
    assert_eq!(line["status"], Value::Null, "it never got one");
}

#[tokio::test]
async fn a_line_names_the_exec_and_its_outcome_and_comes_when_the_stream_is_over() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let program = Program::start().await;
    let here = "/vms/web-1/exec";
    let with = |more: Value| {
        let mut body = json!({ "command": "sh", "args": ["-c", "exit 3"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let lines = "Accept: application/x-ndjson";
    for (id, more, header, status, outcome) in [
        ("exits", json!({ "id": "job-1" }), "X-None: 0", 200, "exited 3"),
        ("streams", json!({ "id": "job-2" }), lines, 200, "exited 3"),
        ("lives-on", json!({ "id": "job-3", "detach": true }), lines, 202, "detached"),
        (
            "conflicts",
            json!({ "id": "job-1", "env": { "A": SECRET } }),
            lines,
            409,
            "exec_conflict",
        ),
        (
            "is-late",
            json!({ "id": "job-4", "args": ["-c", "sleep 9"], "timeout_ms": 50 }),
            "X-None: 0",
            200,
            "timed_out",
        ),
    ] {
        let body = with(more.clone());
        let asked = ["--json", &body, "--header", header];
        assert_eq!(program.ask(id, ROOT, "POST", here, &asked).await, status, "{id}");
        let line = program.line(id).await;
        let said = [&line["exec_id"], &line["outcome"], &line["status"]];
        assert_eq!(said, [&more["id"], &json!(outcome), &json!(status)], "{line}");
    }
    let many = json!({ "vms": ["*"], "exec": { "command": "false" } }).to_string();
    assert_eq!(program.ask("many", ROOT, "POST", "/exec", &["--json", &many]).await, 200);
    let line = program.line("many").await;
    let outcome = "1 vms: 0 succeeded, 1 failed, 0 problems, 0 skipped";
    assert_eq!((&line["outcome"], &line["command"]), (&json!(outcome), &json!("\"false\"")));
    // A stream that goes on has no line yet.
    let marker = program.path("marker");
    let script = format!("touch {}; exec sleep 600", marker.display());
    let body = json!({ "command": "sh", "args": ["-c", script] }).to_string();
    // Not the blocking one: the VM lives in this thread.
    let mut stream = tokio::net::TcpStream::connect(program.address()).await.unwrap();
    let head = String::from_utf8(request("goes-on", &body)).unwrap();
    let head = head.replace("Host: localhost\r\n", &format!("Host: localhost\r\n{lines}\r\n"));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    program.until("the program runs", |_| marker.exists().then_some(())).await;
    assert_eq!(program.lines_of("goes-on"), Vec::<Value>::new());
    drop(stream);
    let line = program.line("goes-on").await;
    assert_eq!((&line["status"], &line["outcome"]), (&json!(200), &Value::Null));
    assert!(!fs::read_to_string(program.path("audit")).unwrap().contains(SECRET));
}

fn request(id: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /vms/web-1/exec HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {id}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// How a client leaves right behind its request.
const WAYS_OUT: [fn(TcpStream); 4] = [
    drop,
    |stream| rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
    |stream| stream.shutdown(Shutdown::Both).unwrap_or_default(),
    |stream| stream.shutdown(Shutdown::Write).unwrap_or_default(),
];

/// So many times the daemon must have asked itself who it was.
const TIMES: usize = 200;

/// The kernel shows the sockets that such a client leaves behind as root's.
#[tokio::test]
async fn a_client_that_left_at_once_is_never_taken_for_root() {
    let program = Program::start().await;
    let (address, marker) = (program.address().to_owned(), program.path("marker"));
    let body = touch(&marker);
    let enough = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&enough);
    let leaving = std::thread::spawn(move || {
        become_other();
        assert!(whoami(&address).contains(&OTHER.uid.to_string()));
        while !until.load(Ordering::SeqCst) {
            leave_behind(&address, &body);
        }
    });
    // A close may overtake its request, which is then never read: count those that were.
    let asked = |program: &Program| (program.lines().len() >= TIMES).then_some(());
    program.until("enough requests", asked).await;
    enough.store(true, Ordering::SeqCst);
    leaving.join().unwrap();
    // Connections are taken in turn, so the others are at least being served.
    assert_eq!(program.ask("last", OTHER, "GET", "/whoami", &[]).await, 200);
    program.until("they are over", |program| (program.connections() == 0).then_some(())).await;
    for line in program.lines() {
        let fields = &line["fields"];
        assert!(fields["uid"].is_null() || fields["uid"] == OTHER.uid, "{line}");
        assert_eq!(fields["allowed"], false, "{line}");
        assert!([json!(401), json!(403), Value::Null].contains(&fields["status"]), "{line}");
    }
    assert!(!marker.exists());
    // The same request by root does it.
    let body = ["--json", &touch(&marker)];
    assert_eq!(program.ask("root", ROOT, "POST", "/vms/web-1/exec", &body).await, 200);
    assert!(marker.exists());
}

/// Once in every way: the request alone, and with more behind it, which keeps the daemon from seeing
/// that the client is gone until it has dealt with the request.
fn leave_behind(address: &str, body: &str) {
    let more = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for leave in WAYS_OUT {
        for behind in ["", more] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&[&request("left", body), behind.as_bytes()].concat()).unwrap();
            leave(stream);
        }
    }
}

/// This thread alone.
fn become_other() {
    let gid = rustix::process::Gid::from_raw(OTHER.gid);
    let uid = rustix::process::Uid::from_raw(OTHER.uid);
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_gid(gid).unwrap();
    rustix::thread::set_thread_uid(uid).unwrap();
}

fn whoami(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
