//! A daemon with at most 64 descriptors, and a load that would need more.

use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use testkit::daemon::DEADLINE;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

struct Daemon {
    dir: TempDir,
    socket: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts the daemon with hard limits, as set by `ulimit`.
    fn limited(limits: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let socket = dir.path().join("minionsd.sock");
        let child = Command::new("sh")
            .args(["-c", &format!("{limits}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_minionsd")])
            .args(["--listen", "none", "--unix-socket"])
            .arg(&socket)
            .arg("--socket-dir")
            .arg(dir.path())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { dir, socket, child }
    }

    /// Sends a request over a new connection, and returns status and body.
    async fn get(&self, path: &str) -> Option<(u16, Value)> {
        let http = testkit::daemon::http()
            .unix_socket(self.socket.clone())
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let response = http.get(format!("http://minionsd{path}")).send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.json().await.unwrap_or_default()))
    }

    async fn until(&self, path: &str, condition: impl Fn(u16, &Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let seen = self.get(path).await;
            if let Some((status, json)) = &seen
                && condition(*status, json)
            {
                return json.clone();
            }
            assert!(Instant::now() < deadline, "timed out: GET {path} still returns {seen:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_hundred_vms_become_ready_with_descriptors_for_thirty() {
    let daemon = Daemon::limited("ulimit -n 64");
    let agent = agent().unwrap();
    let _vms: Vec<_> = (0..100)
        .map(|n| {
            let behaviour = Behaviour::Agent(agent.clone());
            FakeVmm::start(daemon.dir.path(), &format!("vm-{n}"), behaviour).unwrap()
        })
        .collect();
    daemon
        .until("/vms", |status, list| {
            let vms = list["vms"].as_array().map_or(&[][..], Vec::as_slice);
            status == 200 && vms.len() == 100 && vms.iter().all(|vm| vm["state"] == "ready")
        })
        .await;
    assert_eq!(daemon.get("/healthz").await.unwrap().0, 200);
    for n in [0, 50, 99] {
        // A request may be rejected for a moment.
        daemon
            .until(&format!("/vms/vm-{n}/health"), |status, _| {
                assert!(matches!(status, 200 | 503), "{status}");
                status == 200
            })
            .await;
    }
}

#[tokio::test]
async fn clients_beyond_the_limit_are_rejected_but_healthz_still_answers() {
    let daemon = Daemon::limited("ulimit -n 64");
    daemon.until("/readyz", |status, _| status == 200).await;
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(UnixStream::connect(&daemon.socket).await.unwrap());
    }
    let refused = daemon.until("/vms", |status, _| status == 503).await;
    assert_eq!(refused["code"], "overloaded");
    daemon.until("/healthz", |status, _| status == 200).await;
    drop(idle);
    daemon.until("/vms", |status, _| status == 200).await;
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let daemon = Daemon::limited("ulimit -S -n 64; ulimit -H -n 640");
    daemon.until("/readyz", |status, _| status == 200).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.child.id().unwrap()));
    let limits = limits.unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let columns: Vec<_> = files.split_ascii_whitespace().collect();
    assert_eq!(columns[3..5], ["640", "640"], "{files}");
}
