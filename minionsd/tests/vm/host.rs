//! A real VM, and minionsd as a separate process.

use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use testkit::daemon::{Reply, read};
use testkit::rig::{Artifacts, Vm, VmConfig};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub(crate) const AGENT_PORT: u32 = 1024;
pub(crate) const VM: &str = "web-1";

/// Deadline for a boot, which takes a few seconds; long enough for a very busy machine.
pub(crate) const BOOT: Duration = Duration::from_secs(120);

/// Lock that lets only one test run its VM at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// VM and its daemon, dropped in this order: daemon, VM.
pub(crate) struct Host {
    pub(crate) daemon: DaemonProcess,
    pub(crate) vm: Vm,
    http: reqwest::Client,
    dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// Running minionsd. Killed when dropped.
pub(crate) struct DaemonProcess(Child);

impl DaemonProcess {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minionsd"));
        command.args(["--listen", "127.0.0.1:0", "--socket-dir"]).arg(dir);
        command.arg("--unix-socket").arg(dir.join("minionsd.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Returns the number of open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().count()
    }

    /// Asserts that the daemon has not ended.
    #[track_caller]
    pub(crate) fn assert_runs(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None);
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Host {
    /// Starts the daemon and the VM, and waits until the VM is ready.
    pub(crate) async fn start() -> Self {
        let turn = TURN.lock().await;
        let dir =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let daemon = DaemonProcess::start(dir.path());
        let http = testkit::daemon::http()
            .unix_socket(dir.path().join("minionsd.sock"))
            .timeout(BOOT)
            .build()
            .unwrap();
        let vm = boot(dir.path());
        let host = Self { daemon, vm, http, dir, _turn: turn };
        let deadline = Instant::now() + BOOT;
        while host.request("GET", "/readyz", Value::Null).send().await.is_err() {
            assert!(Instant::now() < deadline, "minionsd does not serve");
            sleep(Duration::from_millis(10)).await;
        }
        host.until(&format!("/vms/{VM}"), |vm| vm.json["state"] == "ready").await;
        host
    }

    /// Boots another VM of the same name, after the end of the first one.
    pub(crate) fn boot_another(&mut self) {
        self.vm = boot(self.dir.path());
    }

    /// Waits until the guest's agent accepts connections, independently of the daemon.
    pub(crate) fn wait_for_agent(&mut self) {
        self.vm.wait_for_port(AGENT_PORT, BOOT).unwrap_or_else(|error| panic!("{error}"));
    }

    fn request(&self, method: &str, path: &str, body: Value) -> reqwest::RequestBuilder {
        let request = self.http.request(method.parse().unwrap(), format!("http://localhost{path}"));
        if body.is_null() { request } else { request.json(&body) }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        read(self.request("GET", path, Value::Null).send().await.unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        read(self.request("DELETE", path, Value::Null).send().await.unwrap()).await
    }

    /// Returns the daemon's view of the VM.
    pub(crate) async fn look(&self) -> Reply {
        self.get(&format!("/vms/{VM}")).await
    }

    /// Returns the identity of the agent and of its guest's boot.
    pub(crate) async fn agent(&self) -> Value {
        self.look().await.json["agent"].clone()
    }

    /// Waits until `GET path` satisfies `condition`.
    pub(crate) async fn until(&self, path: &str, condition: impl Fn(&Reply) -> bool) -> Reply {
        let deadline = Instant::now() + BOOT;
        loop {
            let reply = self.get(path).await;
            if condition(&reply) {
                return reply;
            }
            let serial = || self.vm.serial_log();
            assert!(
                Instant::now() < deadline,
                "timed out: GET {path} still returns {reply:?}\n{}",
                serial()
            );
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the VM is ready with another agent than `agent`.
    pub(crate) async fn until_another(&self, agent: &Value) -> Value {
        let another = |vm: &Reply| {
            vm.json["state"] == "ready" && vm.json["agent"]["instance_id"] != agent["instance_id"]
        };
        self.until(&format!("/vms/{VM}"), another).await.json["agent"].clone()
    }

    pub(crate) async fn exec(&self, body: Value) -> Reply {
        read(self.request("POST", &format!("/vms/{VM}/exec"), body).send().await.unwrap()).await
    }

    /// Runs a script in the guest and returns its output.
    #[track_caller]
    pub(crate) fn prints(&self, script: &str) -> impl Future<Output = String> {
        let at = std::panic::Location::caller();
        let ran = self.exec(json!({ "command": "sh", "args": ["-c", script] }));
        async move {
            let ran = ran.await;
            assert_eq!(ran.json["exit_code"], 0, "at {at}: {ran:?}");
            ran.json["stdout"].as_str().unwrap().trim().to_owned()
        }
    }

    /// Starts a long-running script, and returns when the guest runs it.
    pub(crate) async fn under_way(&self, script: &str) -> JoinHandle<Reply> {
        let started = format!("touch /tmp/under-way; {script}");
        let body = json!({ "command": "sh", "args": ["-c", started] });
        let request = self.request("POST", &format!("/vms/{VM}/exec"), body);
        let running = tokio::spawn(async { read(request.send().await.unwrap()).await });
        self.prints("until [ -e /tmp/under-way ]; do sleep 0.01; done; rm /tmp/under-way").await;
        running
    }
}

fn boot(dir: &Path) -> Vm {
    let artifacts = Artifacts::locate().unwrap_or_else(|error| panic!("{error}"));
    Vm::boot(&artifacts, VmConfig::new(VM, dir)).unwrap_or_else(|error| panic!("{error}"))
}
