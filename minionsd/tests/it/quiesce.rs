//! Quiesce and thaw over REST, with the real agent as a process. File systems are frozen in VMs only.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;
use testkit::agent_process::AgentProcess;
use testkit::daemon::{Reply, TestDaemon};

const QUIESCE: &str = "/vms/web-1/quiesce";
const THAW: &str = "/vms/web-1/thaw";

struct HookedVm {
    daemon: TestDaemon,
    _agent: AgentProcess,
    hooks: TempDir,
}

impl HookedVm {
    async fn start() -> Self {
        let (daemon, hooks) = (TestDaemon::start().await, tempfile::tempdir().unwrap());
        let flags = ["--allow", "health,status,exec,quiesce", "--hook-dir"];
        let flags = [&flags[..], &[hooks.path().to_str().unwrap()]].concat();
        let agent = AgentProcess::start(daemon.sockets(), "web-1", &flags);
        daemon.until_state("web-1", "ready").await;
        Self { daemon, _agent: agent, hooks }
    }

    fn hook(&self, path: &str, script: &str) {
        let file = self.hooks.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn vm(&self) -> Value {
        self.daemon.get("/vms/web-1").await.json
    }

    async fn thaw(&self, query: &str) -> Reply {
        let request = self.daemon.request(reqwest::Method::POST, &format!("{THAW}{query}"));
        testkit::daemon::read(request.send().await.unwrap()).await
    }
}

#[tokio::test]
async fn a_quiesced_guest_shows_its_lease_and_refuses_other_calls_until_the_thaw() {
    let guest = HookedVm::start().await;
    guest.hook("freeze.d/10-a", "exit 0");
    guest.hook("thaw.d/10-a", "exit 3");
    let quiesced = guest.daemon.post(QUIESCE, json!({ "ttl_ms": 600_000 })).await;
    assert_eq!(quiesced.status, 200, "{quiesced:?}");
    assert_eq!((&quiesced.json["frozen"], &quiesced.json["not_frozen"]), (&json!([]), &json!([])));
    assert_eq!(quiesced.json["hooks"][0]["ok"], true, "{quiesced:?}");
    let until = &quiesced.json["quiesced_until"];
    assert_eq!(&guest.vm().await["quiesced_until"], until);
    let health = guest.daemon.get("/vms/web-1/health").await;
    assert!(health.json["quiesced_until"].is_string(), "{health:?}");

    let refused = guest.daemon.exec("web-1", "true", &[]).await;
    refused.assert_problem(503, "quiesced");
    assert_eq!(refused.json["retryable"], true, "{refused:?}");
    assert_eq!(refused.json["may_have_executed"], false, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    guest.daemon.post(QUIESCE, json!({})).await.assert_problem(503, "quiesced");
    guest.thaw("?id=another").await.assert_problem(409, "not_quiesced");
    assert_eq!(guest.daemon.get("/vms/web-1/status").await.status, 200);

    let id = quiesced.json["id"].as_str().unwrap();
    let thawed = guest.thaw(&format!("?id={id}")).await;
    assert_eq!((thawed.status, &thawed.json["id"]), (200, &quiesced.json["id"]), "{thawed:?}");
    assert_eq!(thawed.json["already"], false, "{thawed:?}");
    let repeated = guest.thaw(&format!("?id={id}")).await;
    assert_eq!((repeated.status, &repeated.json["already"]), (200, &json!(true)), "{repeated:?}");
    assert_eq!(thawed.json["hooks"][0]["ok"], false, "{thawed:?}");
    assert_eq!(thawed.json["hooks"][0]["detail"], "exited with status 3", "{thawed:?}");
    assert_eq!(guest.vm().await.get("quiesced_until"), None);
    assert_eq!(guest.daemon.exec("web-1", "true", &[]).await.json["exit_code"], 0);
    guest.thaw("").await.assert_problem(409, "not_quiesced");
}

#[tokio::test]
async fn the_end_of_the_lease_is_noticed() {
    let guest = HookedVm::start().await;
    let quiesced = guest.daemon.post(QUIESCE, json!({ "ttl_ms": 1000, "hooks": false })).await;
    assert_eq!(quiesced.status, 200, "{quiesced:?}");
    guest.daemon.until("/vms/web-1", |vm| vm.json.get("quiesced_until").is_none()).await;
    assert_eq!(guest.daemon.exec("web-1", "true", &[]).await.json["exit_code"], 0);
}

#[tokio::test]
async fn a_failed_hook_and_wrong_values_are_named() {
    let guest = HookedVm::start().await;
    guest.hook("freeze.d/10-db", "echo busy >&2; exit 1");
    let failed = guest.daemon.post(QUIESCE, json!({})).await;
    failed.assert_problem(502, "quiesce_failed");
    assert_eq!(failed.json["step"], "hooks", "{failed:?}");
    let detail = failed.json["detail"].as_str().unwrap();
    assert!(detail.contains("freeze.d/10-db exited with status 1: busy"), "{detail}");
    assert_eq!(guest.vm().await.get("quiesced_until"), None);

    let year = guest.daemon.post(QUIESCE, json!({ "ttl_ms": 31_536_000_000_u64 })).await;
    year.assert_problem(422, "invalid_request").assert_field("ttl_ms");
    let freeze = guest.daemon.post(QUIESCE, json!({ "freeze_fs": true, "hooks": false })).await;
    freeze.assert_problem(422, "invalid_request").assert_field("freeze_fs");
    let long = guest.thaw(&format!("?id={}", "x".repeat(129))).await;
    long.assert_problem(400, "invalid_request").assert_field("id");
}

#[tokio::test]
async fn an_agent_that_may_not_quiesce_its_guest_says_so() {
    let daemon = TestDaemon::start().await;
    let _agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
    daemon.until_state("web-1", "ready").await;
    let refused = daemon.post(QUIESCE, json!({})).await;
    refused.assert_problem(501, "agent_error");
    assert_eq!(refused.json["agent_code"], "forbidden", "{refused:?}");
}
