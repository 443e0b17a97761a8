//! `If-Incarnation`: calls that only one boot and one instance of a guest may execute.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use testkit::agent_process::AgentProcess;
use testkit::daemon::{Reply, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, agent};

const HEADER: &str = "If-Incarnation";

async fn id(daemon: &TestDaemon) -> String {
    let vm = daemon.get("/vms/web-1").await;
    vm.json["incarnation"]["id"].as_str().unwrap_or_else(|| panic!("{vm:?}")).to_owned()
}

fn exec(daemon: &TestDaemon, file: &Path) -> RequestBuilder {
    let body = json!({ "command": "touch", "args": [file] });
    daemon.request(Method::POST, "/vms/web-1/exec").json(&body)
}

async fn send(request: RequestBuilder, id: &str) -> Reply {
    read(request.header(HEADER, id).send().await.unwrap()).await
}

/// Requests that change the guest, or open a stream to it. Each creates `file` if it is executed.
fn changes(daemon: &TestDaemon, file: &Path) -> Vec<(&'static str, RequestBuilder)> {
    let path = file.display();
    let files =
        |method, more: &str| daemon.request(method, &format!("/vms/web-1/files{more}?path={path}"));
    let lines = exec(daemon, file).header("Accept", "application/x-ndjson");
    let forward = daemon
        .request(Method::GET, "/vms/web-1/forward?target=tcp:127.0.0.1:9")
        .header("Connection", "Upgrade")
        .header("Upgrade", "tcp");
    vec![
        ("exec", exec(daemon, file)),
        ("exec as lines", lines),
        ("write", files(Method::PUT, "").body("text")),
        (
            "mkdir",
            daemon.request(Method::POST, "/vms/web-1/files/mkdir").json(&json!({ "path": file })),
        ),
        ("list", files(Method::GET, "/list")),
        ("forward", forward),
        (
            "signal",
            daemon
                .request(Method::POST, "/vms/web-1/execs/x/signal")
                .json(&json!({ "signal": "TERM" })),
        ),
        ("remove", daemon.request(Method::DELETE, "/vms/web-1/execs/x")),
        (
            "quiesce",
            daemon.request(Method::POST, "/vms/web-1/quiesce").json(&json!({ "hooks": false })),
        ),
        ("thaw", daemon.request(Method::POST, "/vms/web-1/thaw")),
        ("apply", daemon.request(Method::POST, "/vms/web-1/config/apply")),
        ("restored", daemon.request(Method::POST, "/vms/web-1/restored").json(&json!({}))),
    ]
}

#[tokio::test]
async fn a_call_for_another_incarnation_is_refused_and_not_executed() {
    let daemon = TestDaemon::start().await;
    let allow = ["--allow", "health,status,exec,files,forward,quiesce"];
    let _agent = AgentProcess::start(daemon.sockets(), "web-1", &allow);
    daemon.until_state("web-1", "ready").await;
    let (id, file) = (id(&daemon).await, daemon.sockets().join("file"));
    let health = daemon.get("/vms/web-1/health").await;
    assert_eq!(health.json["incarnation_id"], id[..], "{health:?}");
    for (name, request) in changes(&daemon, &file) {
        let refused = send(request, "another").await;
        assert_eq!(
            (refused.status, &refused.json["code"]),
            (409, &json!("vm_replaced")),
            "{name}: {refused:?}"
        );
        assert_eq!(
            (&refused.json["retryable"], &refused.json["may_have_executed"]),
            (&json!(false), &json!(false))
        );
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.contains(&id), "{name}: {detail}");
    }
    assert!(!file.exists(), "a refused call was executed");
    assert_eq!(daemon.get("/vms/web-1").await.json.get("quiesced_until"), None);
    let done = send(exec(&daemon, &file), &id).await;
    assert_eq!((done.status, &done.json["exit_code"]), (200, &json!(0)), "{done:?}");
    assert!(file.exists());
}

#[tokio::test]
async fn the_connection_decides_not_what_the_registry_knows() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    let (before, file) = (id(&daemon).await, daemon.sockets().join("file"));
    // Fills the pool.
    assert_eq!(daemon.exec("web-1", "true", &[]).await.status, 200);
    vm.switch_to(Behaviour::Agent(agent().unwrap()));
    vm.cut();
    // The registry may or may not have noticed that.
    let refused = send(exec(&daemon, &file), &before).await;
    refused.assert_problem(409, "vm_replaced");
    assert!(!file.exists(), "a refused call was executed");
    let noticed = daemon
        .until("/vms/web-1", |vm| {
            vm.json["incarnation"]["id"] != before[..] && vm.json["state"] == "ready"
        })
        .await;
    let now = noticed.json["incarnation"]["id"].as_str().unwrap();
    assert_eq!(send(exec(&daemon, &file), now).await.json["exit_code"], 0);
    assert!(file.exists());
}

#[tokio::test]
async fn a_malformed_precondition_is_refused() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let file = daemon.sockets().join("file");
    for wrong in ["", &"x".repeat(129)] {
        let refused = send(exec(&daemon, &file), wrong).await;
        refused.assert_problem(400, "invalid_request").assert_field(HEADER);
    }
    let twice = exec(&daemon, &file).header(HEADER, "a");
    send(twice, "b").await.assert_problem(400, "invalid_request").assert_field(HEADER);
    let many = json!({ "vms": ["web-1"], "exec": { "command": "touch", "args": [file] } });
    let many = daemon.request(Method::POST, "/exec").json(&many);
    send(many, "a").await.assert_problem(400, "invalid_request").assert_field(HEADER);
    assert!(!file.exists());
}

#[test]
fn every_operation_on_a_guest_documents_the_header() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../openapi/minions.json");
    let document: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_of_guest = path.starts_with("/vms/{vm}/") && operation["x-scope"] == "operate";
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let has_header = parameters.into_iter().any(|parameter| parameter["name"] == HEADER);
            assert_eq!(has_header, is_of_guest, "{method} {path}");
            if is_of_guest {
                operations += 1;
                let conflict = operation["responses"]["409"]["description"].as_str().unwrap();
                assert!(conflict.contains("vm_replaced"), "{method} {path}: {conflict}");
            }
        }
    }
    assert!(operations > 15, "{operations}");
}
