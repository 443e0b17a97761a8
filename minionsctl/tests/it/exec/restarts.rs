//! Restarts of the daemon while programs run.

use crate::shared::command::{Running, ctl};
use crate::shared::process;
use rustix::process::Signal;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use tempfile::TempDir;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

const LINES: usize = 600_000;

/// Creates a directory with the VM `web-1`, for daemons that are started and ended.
pub(crate) fn vm() -> (TempDir, FakeVmm) {
    let dir =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let behaviour = Behaviour::Agent(agent().unwrap());
    let vm = FakeVmm::start(dir.path(), "web-1", behaviour).unwrap();
    (dir, vm)
}

/// Sends numbered lines through `cat` while two daemons are ended with `signal`.
fn survives(signal: Signal) {
    let (dir, _vm) = vm();
    let mut daemon = process::start(dir.path());
    let count = dir.path().join("count");
    let script = format!("echo run >> {}; cat; exit 7", count.display());
    let mut command = ctl(&daemon.host(), &["exec", "-i", "web-1", "--", "sh", "-c", &script]);
    let mut running = Running::start(command.stdin(Stdio::piped()));

    let mut stdin = running.child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let lines: String = (0..LINES).map(|line| format!("{line}\n")).collect();
        stdin.write_all(lines.as_bytes()).unwrap();
    });
    for line in 0..LINES {
        assert_eq!(running.line(), line.to_string());
        if line == LINES / 3 || line == LINES / 3 * 2 {
            daemon.end(signal);
            daemon = process::start(dir.path());
        }
    }
    feeder.join().unwrap();
    let ran = running.end();
    assert_eq!((ran.code, ran.stdout.len(), ran.stderr.as_str()), (7, 0, ""));
    assert_eq!(std::fs::read_to_string(count).unwrap(), "run\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_does_not_affect_a_program() {
    survives(Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_does_not_affect_a_program() {
    survives(Signal::TERM);
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_and_logs_continue_across_a_restart() {
    let (dir, _vm) = vm();
    let mut daemon = process::start(dir.path());
    let host = daemon.host();
    let script = format!(
        "echo one; until [ -e {}/go ]; do sleep 0.05; done; echo two; exit 3",
        dir.path().display()
    );
    let mut start = ctl(&host, &["exec", "-d", "--id", "x", "web-1", "--", "sh", "-c", &script]);
    assert!(start.output().unwrap().status.success());
    let mut follower = Running::start(&mut ctl(&host, &["logs", "-f", "web-1", "x"]));
    assert_eq!(follower.line(), "one");
    daemon.end(Signal::KILL);
    let mut daemon = process::start(dir.path());
    let waiting = Running::start(&mut ctl(&host, &["wait", "web-1", "x"]));
    std::fs::write(dir.path().join("go"), "").unwrap();
    let followed = follower.end();
    assert_eq!((followed.code, &followed.stdout[..]), (0, &b"two\n"[..]), "{}", followed.stderr);
    waiting.end().assert(3, "x ended with 3", "");
    daemon.end(Signal::TERM);
}
