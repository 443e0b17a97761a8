//! Completion, by the protocol of the shells' scripts: a variable and arguments.

use crate::shared::command::{Ran, ctl, direct, minionsctl};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::agent_process::AgentProcess;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wait::until;

/// Largest number of candidates.
const MAX_CANDIDATES: usize = 500;

/// Returns what minionsctl prints for the words, as fish passes them. The last word is being typed.
#[track_caller]
fn fish(words: &[&str]) -> Ran {
    let mut command = minionsctl(&["--", "minionsctl"]);
    Ran::of(command.args(words).env("MINIONSCTL_COMPLETE", "fish"))
}

/// Returns what minionsctl prints for a line, as bash passes it. bash replaces `replaced`.
#[track_caller]
fn bash(line: &str, replaced: &str) -> Ran {
    let mut command = minionsctl(&["--", line, "minionsctl", replaced]);
    Ran::of(command.env("MINIONSCTL_COMPLETE", "bash"))
}

/// Returns the values, without descriptions. The answer must be complete and silent.
#[track_caller]
fn values(ran: &Ran) -> Vec<String> {
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let text = std::str::from_utf8(&ran.stdout).unwrap();
    text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// Waits for the values: on a loaded machine, the daemon may need more than the time that completion waits.
#[track_caller]
fn complete(words: &[&str], wanted: &[&str]) {
    until(&format!("{words:?} is completed to {wanted:?}"), || {
        let found = values(&fish(words));
        if found == wanted { Ok(()) } else { Err(found) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_from_the_daemon_that_the_line_selects() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let start = |name: &str| {
        FakeVmm::start(daemon.sockets(), name, Behaviour::Agent(agent().unwrap())).unwrap()
    };
    let _others = ["web-2", "db-1"].map(start);
    for name in ["web-2", "db-1"] {
        daemon.until_state(name, "ready").await;
    }
    let host = daemon.host();
    for line in [&["get", ""][..], &["shell", "-u", "eve", ""], &["exec", "--on", ""]] {
        complete(&[&["--host", &host], line].concat(), &["db-1", "web-1", "web-2"]);
    }
    complete(&["get", "--host", &host, "web"], &["web-1", "web-2"]);
    complete(&["exec", &format!("--host={host}"), "web-1"], &["web-1"]);
    complete(&["--host", &host, "ssh", "eve@db"], &["eve@db-1"]);
    complete(&["--host", &host, "cp", "./x", "w"], &["web-1:", "web-2:"]);
    complete(&["--host", &host, "fs", "ls", "web-2:"], &["web-2:/"]);
    complete(&["--host", &host, "wait", "--for", "ready", "web-1", "d"], &["db-1"]);
    // Words of a program, and of an option that takes other values.
    complete(&["--host", &host, "exec", "web-1", "ls", ""], &[]);
    complete(&["--host", &host, "exec", "web-1", "ls", "-"], &[]);
    complete(&["--host", &host, "exec", "web-1", "--work"], &["--workdir"]);
    complete(&["--host", &host, "ls", "--state", "un"], &["unreachable"]);

    // Each shell has its own form.
    let asked = |shell: &str, words: &[&str]| {
        let mut command = minionsctl(&["--"]);
        Ran::of(command.args(words).env("MINIONSCTL_COMPLETE", shell))
    };
    let words = ["minionsctl", "--host", &host, "get", "db"];
    until("the daemon answers zsh", || asked("zsh", &words).stdout == b"+db-1:ready\n");
    until("the daemon answers fish", || asked("fish", &words).stdout == b"db-1\tready\n");
    let line = format!("minionsctl --host {host} get db");
    until("the daemon answers bash", || bash(&line, "db").stdout == b"db-1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_and_their_credentials_apply_and_are_completed() {
    let Guest { daemon, _agent, dir: _ } = Guest::start().await;
    let user = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        Ran::of(minionsctl(args).env("XDG_CONFIG_HOME", user.path())).assert(0, "", "");
    };
    let token = daemon.sockets().join("token");
    let url = daemon.url("");
    run(&["context", "add", "tcp", "--host", &url, "--token-file", token.to_str().unwrap()]);
    run(&["context", "add", "away", "--host", "/nowhere.sock"]);
    let asked = |words: &[&str]| {
        let mut command = minionsctl(&["--", "minionsctl"]);
        command.args(words).env("MINIONSCTL_COMPLETE", "fish");
        values(&Ran::of(command.env("XDG_CONFIG_HOME", user.path())))
    };
    assert_eq!(asked(&["--context", ""]), ["away", "default", "tcp"]);
    assert_eq!(asked(&["context", "use", "t"]), ["tcp"]);
    assert_eq!(asked(&["context", "rm", ""]), ["away", "tcp"]);
    until("the context's daemon answers", || asked(&["--context", "tcp", "get", ""]) == ["web-1"]);
    assert_eq!(asked(&["--context", "away", "get", ""]), [""; 0]);
    // Files need the token of the context.
    let file = format!("web-1:{}/tok", daemon.sockets().display());
    let found = format!("web-1:{}/token", daemon.sockets().display());
    until("files are completed over TCP", || {
        asked(&["--context", "tcp", "fs", "ls", &file]) == [found.clone()]
    });
    complete(&["--host", &url, "fs", "ls", &file], &[]);
    run(&["context", "use", "tcp"]);
    until("the current context's daemon answers", || asked(&["get", ""]) == ["web-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_names_and_labels_are_completed() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let host = daemon.host();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vms.yaml");
    let text = "
pools: [{name: lan, subnet: 10.0.0.0/24, range: 10.0.0.2-10.0.0.9}, {name: wan, subnet: 10.1.0.0/24}]
declarations:
  - {name: 'web-*', labels: {app: web, tier: front}}
  - {name: db-7, labels: {app: db}}
";
    fs::write(&file, text).unwrap();
    let run = |args: &[&str]| Ran::of(&mut ctl(&host, args));
    run(&["apply", "-f", file.to_str().unwrap()]).assert(0, "created", "");
    run(&["pool", "reserve", "lan", "10.0.0.5"]).assert(0, "", "");
    complete(&["--host", &host, "pool", "leases", ""], &["lan", "wan"]);
    complete(&["--host", &host, "pool", "release", "lan", "10"], &["10.0.0.5"]);
    complete(&["--host", &host, "config", ""], &["db-7", "web-1"]);
    complete(&["--host", &host, "ls", "-l", ""], &["app=web", "tier=front"]);
    complete(&["--host", &host, "ls", "-l", "app=web,ti"], &["app=web,tier=front"]);
    complete(&["--host", &host, "ls", "-l", "app!=w"], &["app!=web"]);
    complete(&["--host", &host, "ls", "-l", "!a"], &["!app"]);
    let line = format!("minionsctl --host {host} ls -l app=w");
    until("bash gets the end of the label", || bash(&line, "w").stdout == b"web\n");
}

/// Daemon with an agent as a process, and a directory whose files are those of the guest.
struct Guest {
    daemon: TestDaemon,
    _agent: AgentProcess,
    dir: tempfile::TempDir,
}

impl Guest {
    async fn start() -> Self {
        let daemon = TestDaemon::start().await;
        let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
        daemon.until_state("web-1", "ready").await;
        Self { daemon, _agent: agent, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> String {
        format!("web-1:{}/{name}", self.dir.path().display())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_programs_of_guests_are_completed() {
    let guest = Guest::start().await;
    let host = guest.daemon.host();
    for name in ["alpha", "also", ".hidden"] {
        fs::write(guest.dir.path().join(name), "").unwrap();
    }
    fs::create_dir(guest.dir.path().join("al dir")).unwrap();
    let file = |name: &str| guest.file(name);
    let all = [file("al dir/"), file("alpha"), file("also")];
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    complete(&["--host", &host, "fs", "ls", &file("")], &all);
    complete(&["--host", &host, "cp", &file("alp")], &[&file("alpha")]);
    complete(&["--host", &host, "fs", "-u", "root", "cat", &file(".")], &[&file(".hidden")]);
    complete(&["--host", &host, "fs", "-u", "no-such-user", "cat", &file("")], &[]);
    complete(&["--host", &host, "fs", "cat", &file("none/")], &[]);
    complete(&["--host", &host, "fs", "cat", "web-1:relative"], &[]);
    // bash keeps the text up to the colon, and inserts the rest as it is.
    let path = guest.dir.path().display();
    let line = format!("minionsctl --host {host} cp web-1:{path}/al");
    let replaced = format!("{path}/al");
    let wanted = format!("{path}/al\\ dir/\n{path}/alpha\n{path}/also\n");
    until("bash gets files", || bash(&line, &replaced).stdout == wanted.as_bytes());

    let start = ["exec", "-d", "--id", "job-17", "web-1", "--", "sleep", "1000"];
    Ran::of(&mut ctl(&host, &start)).assert(0, "job-17", "");
    for command in ["logs", "attach", "kill", "wait"] {
        complete(&["--host", &host, command, "web-1", "j"], &["job-17"]);
    }
    complete(&["--host", &host, "kill", "-9", "web-1", ""], &["job-17"]);
    let socket = guest.daemon.sockets().join("web-1.vsock");
    complete(&["--socket", socket.to_str().unwrap(), "kill", ""], &["job-17"]);
    complete(&["--socket", socket.to_str().unwrap(), "get", ""], &[]);
    Ran::of(&mut direct(&socket, &["kill", "--remove", "job-17"])).assert(0, "", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_neither_reach_the_terminal_nor_the_shell() {
    let guest = Guest::start().await;
    let host = guest.daemon.host();
    let pwned = guest.dir.path().join("pwned");
    let names =
        ["x y", "x'\"q", "x;`touch pwned`", "x*?[a]", "x\\", "x&|<>#~!{}", "x$(touch pwned)"];
    let hidden: [&[u8]; 6] =
        [b"x\nrm -rf", b"x\x1b]0;t\x07", b"x\tt", b"x\r", b"x\xff", "x\u{9b}2J\u{202e}".as_bytes()];
    let hidden = hidden.iter().map(|name| std::ffi::OsStr::from_bytes(name));
    for name in names.iter().map(std::ffi::OsStr::new).chain(hidden) {
        fs::write(guest.dir.path().join(name), "").unwrap();
    }
    let mut all: Vec<_> = names.iter().map(|name| guest.file(name)).collect();
    all.sort();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    complete(&["--host", &host, "fs", "cat", &guest.file("x")], &all);

    let line = format!("minionsctl --host {host} fs cat {}", guest.file("x"));
    let replaced = guest.file("x");
    let mut answer = bash(&line, &replaced);
    until("bash gets files", || {
        answer = bash(&line, &replaced);
        !answer.stdout.is_empty()
    });
    let inserted = values(&answer);
    let mut echo = Command::new("bash");
    echo.arg("-c").arg(format!("printf '%s\\n' {}", inserted.join(" ")));
    let output = echo.current_dir(guest.dir.path()).output().unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    assert_eq!(words.lines().collect::<Vec<_>>(), all);
    assert!(!pwned.exists(), "a name was executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_candidates_is_limited_and_their_common_beginning_is_right() {
    let guest = Guest::start().await;
    let host = guest.daemon.host();
    for number in 0..MAX_CANDIDATES + 100 {
        fs::write(guest.dir.path().join(format!("f{number:04}")), "").unwrap();
    }
    let file = guest.file("f");
    let mut found = Vec::new();
    until("files are completed", || {
        found = values(&fish(&["--host", &host, "fs", "cat", &file]));
        !found.is_empty()
    });
    assert_eq!(found.len(), MAX_CANDIDATES);
    assert_eq!(found[0], guest.file("f0000"));
    assert_eq!(*found.last().unwrap(), guest.file(&format!("f{:04}", MAX_CANDIDATES + 99)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_away_silent_or_refuses_completes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let silent = dir.path().join("silent.sock");
    // Accepts, as the kernel does for it, and never answers.
    let _listener = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    let silent = format!("unix://{}", silent.display());
    let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_tcp = format!("http://{}", full.local_addr().unwrap());
    let begun = Instant::now();
    let hosts = ["/nowhere.sock", "http://127.0.0.1:1", &silent, &silent_tcp, "ftp://invalid"];
    for host in hosts {
        for line in [&["get", ""][..], &["kill", "web-1", ""], &["fs", "ls", "web-1:/"]] {
            complete(&[&["--host", host], line].concat(), &[]);
        }
    }
    // A command would wait for 25 s each.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    // Credentials that cannot be read, and a refusal.
    complete(&["--token-file", "/nowhere/token", "get", ""], &[]);
    let daemon = TestDaemon::start().await;
    complete(&["--host", &daemon.url(""), "fs", "ls", "web-1:/"], &[]);
    // What needs no daemon is completed nevertheless.
    complete(&["--host", "/nowhere.sock", "get", "--incar"], &["--incarnation"]);
    complete(&["--host", "/nowhere.sock", "quie"], &["quiesce"]);
}

#[test]
fn a_request_that_makes_no_sense_is_answered_with_nothing() {
    for (shell, arguments) in [
        ("bash", &["--"][..]),
        ("bash", &["--", "other ", "minionsctl", ""]),
        ("bash", &["--", "minionsctl logs a b > f", "minionsctl", "f"]),
        ("zsh", &[]),
        ("zsh", &["--", "minionsctl"]),
        ("fish", &["get", "web-1"]),
        ("fish", &["--", "minionsctl", "--port", "x", "get", ""]),
    ] {
        let ran = Ran::of(minionsctl(arguments).env("MINIONSCTL_COMPLETE", shell));
        assert_eq!(values(&ran), [""; 0], "{shell} {arguments:?}");
    }
    let wrong = Ran::of(minionsctl(&["--", "x"]).env("MINIONSCTL_COMPLETE", "elvish"));
    wrong.assert(1, "", "MINIONSCTL_COMPLETE is \"elvish\": must be bash, zsh or fish");
    // An empty variable counts as not set.
    let version = Ran::of(minionsctl(&["--version"]).env("MINIONSCTL_COMPLETE", ""));
    version.assert(0, "minionsctl ", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_of_bash_completes() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    // Printed in spite of a configuration that cannot be used.
    let printed = Ran::of(minionsctl(&["completion", "bash"]).env("MINIONS_HOST", "ftp://x"));
    printed.assert(0, "complete -o nosort -F _minionsctl minionsctl", "");
    let script = String::from_utf8(printed.stdout).unwrap();
    let line = format!("minionsctl --host {} fs ls web-1", daemon.host());
    let asked = format!(
        "{script}\nCOMP_LINE='{line} tail' COMP_POINT={}\n_minionsctl minionsctl web-1 ls 2>&1\n\
         printf '<%s>' \"${{COMPREPLY[@]}}\"; complete -p minionsctl",
        line.len()
    );
    until("bash completes", || {
        let output = Command::new("bash").arg("-c").arg(&asked).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if text.contains("<web-1:>complete") { Ok(()) } else { Err(text) }
    });
    for shell in ["zsh", "fish"] {
        let printed = Ran::of(&mut minionsctl(&["completion", shell]));
        printed.assert(0, "MINIONSCTL_COMPLETE=", "");
    }
    Ran::of(&mut minionsctl(&["completion", "elvish"])).assert(2, "", "bash, zsh, fish");
}
