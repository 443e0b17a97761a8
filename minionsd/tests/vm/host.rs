//! A real VM, and minionsd as a separate process.

use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use testkit::daemon::{Reply, read};
use testkit::minionsd::Minionsd;
use testkit::rig::{Artifacts, Vm, VmConfig};
use testkit::wait::until_async_within;
use tokio::task::JoinHandle;

pub(crate) const AGENT_PORT: u32 = 1024;
pub(crate) const VM: &str = "web-1";

/// Deadline for a boot, which takes a few seconds; long enough for a very busy machine.
pub(crate) const BOOT: Duration = Duration::from_secs(120);

/// VM and its daemon, dropped in this order: daemon, VM.
pub(crate) struct Host {
    pub(crate) daemon: Minionsd,
    pub(crate) vm: Vm,
}

impl Host {
    /// Starts the daemon and the VM, and waits until the VM is ready.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Does the same with this configuration of the daemon.
    pub(crate) async fn start_with(configuration: &str) -> Self {
        let daemon = Minionsd::builder().listen("127.0.0.1:0");
        let daemon =
            if configuration.is_empty() { daemon } else { daemon.config(configuration) }.start();
        let vm = boot(daemon.vms());
        let host = Self { daemon, vm };
        host.until(&format!("/vms/{VM}"), |vm| vm.json["state"] == "ready").await;
        host
    }

    /// Boots another VM of the same name, after the end of the first one.
    pub(crate) fn boot_another(&mut self) {
        self.vm = boot(self.daemon.vms());
    }

    /// Waits until the guest's agent accepts connections, independently of the daemon.
    pub(crate) fn wait_for_agent(&mut self) {
        self.vm.wait_for_port(AGENT_PORT, BOOT).unwrap_or_else(|error| panic!("{error}"));
    }

    fn request(&self, method: &str, path: &str, body: Value) -> reqwest::RequestBuilder {
        let url = format!("http://localhost{path}");
        let request = self.daemon.http().request(method.parse().unwrap(), url).timeout(BOOT);
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
        let what = format!("GET {path} returns the expected reply");
        until_async_within(BOOT, &what, async || {
            let reply = self.get(path).await;
            if condition(&reply) { Ok(reply) } else { Err((reply, self.vm.serial_log())) }
        })
        .await
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

    /// Starts a program and returns its output as lines of JSON.
    pub(crate) async fn exec_lines(&self, body: Value) -> reqwest::Response {
        let request = self.request("POST", &format!("/vms/{VM}/exec"), body);
        let response = request.header("Accept", "application/x-ndjson").send().await.unwrap();
        assert_eq!(response.status(), 200);
        response
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
