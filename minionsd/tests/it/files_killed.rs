//! SIGKILL of client, daemon or agent in the middle of each transfer: nothing is left.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use testkit::agent_process::AgentProcess;
use testkit::minionsd::Minionsd;
use testkit::wait::{DEADLINE, until, until_async};
use tokio::runtime::Runtime;

/// Size of a file that does not fit into the buffers between client and guest, in bytes.
const LARGE: usize = 64 * 1024 * 1024;

/// Part of the input that the client sends before the kill, in bytes.
const SENT: usize = 1024 * 1024;

/// Transfer that is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transfer {
    Read,
    Write,
    Pack,
    Unpack,
    Watch,
    Forward,
}

/// Process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Client,
    Daemon,
    Agent,
}

/// Daemon and agent, and a directory of the "guest" with the file `tree/large` and the empty directory `new`.
struct Site {
    daemon: Minionsd,
    agent: AgentProcess,
    dir: TempDir,
    server: TcpListener,
}

/// Client in the middle of its transfer.
struct BegunTransfer {
    client: Child,
    /// Connection of the forward at its target.
    target: Option<TcpStream>,
}

impl Site {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["tree", "new"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        // Not zeros: a tree has no holes.
        fs::write(dir.path().join("tree/large"), vec![7; LARGE]).unwrap();
        // An operation whose daemon was killed ends after this time.
        let daemon = Minionsd::builder().config("reattach_grace_ms = 2000\n").spawn();
        let agent = AgentProcess::start(daemon.vms(), "web-1", &[]);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self { daemon, agent, dir, server };
        until_async("the VM is ready", async || {
            let reply = site.daemon.get("/vms/web-1").await;
            reply.filter(|reply| reply.json["state"] == "ready").ok_or("not ready")
        })
        .await;
        site
    }

    /// Starts a client, and waits until its transfer is in progress.
    fn begin(&self, transfer: Transfer) -> BegunTransfer {
        let files = |more: &str, name: &str| {
            let path = self.dir.path().join(name);
            format!("http://localhost/vms/web-1/files{more}?path={}", path.display())
        };
        let target = self.server.local_addr().unwrap();
        let target = format!("http://localhost/vms/web-1/forward?target=tcp:{target}");
        let upload = ["--upload-file", "-"];
        let upgrade = ["--http1.1", "--header", "Connection: Upgrade", "--header", "Upgrade: tcp"];
        let (url, more) = match transfer {
            Transfer::Read => (files("", "tree/large"), &[][..]),
            Transfer::Write => (files("", "new/file"), &upload[..]),
            Transfer::Pack => (files("", "tree"), &["--header", "Accept: application/x-tar"][..]),
            Transfer::Unpack => (
                files("", "new"),
                &[upload[0], upload[1], "--header", "Content-Type: application/x-tar"][..],
            ),
            Transfer::Watch => (files("/watch", "tree"), &[][..]),
            Transfer::Forward => (target, &upgrade[..]),
        };
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--no-buffer", "--unix-socket"]).arg(self.daemon.unix_socket());
        let curl = curl.args(more).arg(url).stdin(Stdio::piped()).stdout(Stdio::piped());
        let client = curl.stderr(Stdio::null()).spawn().unwrap();
        let mut begun = BegunTransfer { client, target: None };
        match transfer {
            Transfer::Read | Transfer::Pack => {
                begun.client.stdout.as_mut().unwrap().read_exact(&mut [0; SENT]).unwrap();
            }
            Transfer::Write => self.send(&mut begun, &vec![7; SENT]),
            Transfer::Unpack => {
                let tar = Command::new("tar")
                    .args(["-cf", "-", "-C"])
                    .arg(self.dir.path().join("tree"))
                    .arg("large")
                    .output();
                self.send(&mut begun, &tar.unwrap().stdout[..SENT]);
            }
            Transfer::Watch => {
                until("the operation runs", || {
                    self.operations().first().copied().ok_or("no operation")
                });
            }
            Transfer::Forward => begun.target = Some(self.server.accept().unwrap().0),
        }
        begun
    }

    /// Sends a part of the input, and waits until the operation has received it.
    fn send(&self, begun: &mut BegunTransfer, bytes: &[u8]) {
        begun.client.stdin.as_mut().unwrap().write_all(bytes).unwrap();
        until("the operation has received the input", || {
            let pid = *self.operations().first().ok_or("no operation")?;
            let io = fs::read_to_string(format!("/proc/{pid}/io")).map_err(|_| "it ended")?;
            let received = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
            // The last part may wait in a buffer.
            let enough = received.parse::<usize>().unwrap() > SENT / 2;
            if enough { Ok(()) } else { Err("not yet") }
        });
    }

    /// Returns the processes of operations on the directory.
    fn operations(&self) -> Vec<u32> {
        let dir = self.dir.path().to_str().unwrap();
        let is_operation = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("\0file-op\0") && line.contains(dir)
        };
        let processes = fs::read_dir("/proc").unwrap();
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(is_operation).collect()
    }

    fn kill(&self, victim: Victim, begun: &BegunTransfer) {
        let pid = match victim {
            Victim::Client => begun.client.id(),
            Victim::Daemon => self.daemon.pid(),
            Victim::Agent => self.agent.pid(),
        };
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    /// Returns all names beneath the directory.
    fn names(&self) -> Vec<String> {
        let find = Command::new("find").arg(self.dir.path()).args(["-printf", "%P\n"]).output();
        let names = String::from_utf8(find.unwrap().stdout).unwrap();
        let mut names: Vec<_> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Descriptors of daemon and agent.
    fn descriptors(&self) -> [usize; 2] {
        [self.daemon.descriptors().unwrap_or(0), self.agent.descriptors()]
    }
}

/// Kills the victim in the middle of the transfer, and checks what is left.
async fn interrupt(victim: Victim, transfer: Transfer) {
    let site = Site::start().await;
    let before = site.descriptors();
    let mut begun = site.begin(transfer);
    site.kill(victim, &begun);
    // The client goes on: curl notices the end of a connection only when it sends or receives.
    let (stdin, stdout) = (begun.client.stdin.take(), begun.client.stdout.take());
    std::thread::spawn(|| std::io::copy(&mut stdout.unwrap(), &mut std::io::sink()));
    std::thread::spawn(|| std::io::copy(&mut std::io::repeat(7), &mut stdin.unwrap()));
    until("the client has ended", || {
        begun.client.try_wait().unwrap().ok_or(format!("{victim:?} {transfer:?}"))
    });
    until("the operation has ended", || {
        let left = site.operations();
        if left.is_empty() { Ok(()) } else { Err(format!("{victim:?} {transfer:?} {left:?}")) }
    });
    if let Some(mut target) = begun.target {
        // An end or a reset, but not a connection that stays open.
        target.set_read_timeout(Some(DEADLINE)).unwrap();
        let read = target.read(&mut [0; 16]);
        let is_open = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!is_open, "{victim:?}: the target's connection stays open");
    }
    assert_eq!(site.names(), ["", "new", "tree", "tree/large"], "{victim:?} {transfer:?}");
    if victim == Victim::Client {
        until("all descriptors are closed", || {
            let now = site.descriptors();
            let is_same = now.iter().zip(before).all(|(now, before)| *now <= before);
            if is_same { Ok(()) } else { Err(format!("{transfer:?} {before:?} {now:?}")) }
        });
    }
}

/// Interrupts all transfers, at the same time: most of it is waiting.
fn interrupt_all(victim: Victim) {
    use Transfer::{Forward, Pack, Read, Unpack, Watch, Write};
    std::thread::scope(|scope| {
        for transfer in [Read, Write, Pack, Unpack, Watch, Forward] {
            scope.spawn(move || Runtime::new().unwrap().block_on(interrupt(victim, transfer)));
        }
    });
}

#[test]
fn a_killed_client_leaves_nothing() {
    interrupt_all(Victim::Client);
}

#[test]
fn a_killed_daemon_leaves_nothing() {
    interrupt_all(Victim::Daemon);
}

#[test]
fn a_killed_agent_leaves_nothing() {
    interrupt_all(Victim::Agent);
}
