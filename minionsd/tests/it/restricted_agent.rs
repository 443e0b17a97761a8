//! An agent that was started without some operations rejects them as such, not as an old agent.

use serde_json::{Value, json};
use testkit::daemon::{Reply, TestDaemon};
use testkit::fake_vmm::{Behaviour, Capability, FakeVmm, agent_allowing};

async fn restricted_to(operations: &[Capability]) -> (TestDaemon, FakeVmm) {
    let daemon = TestDaemon::start().await;
    let agent = agent_allowing(operations.iter().copied()).unwrap();
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent)).unwrap();
    daemon.until_state("web-1", "ready").await;
    (daemon, vm)
}

#[track_caller]
fn assert_refused(reply: &Reply, operation: &str) {
    reply.assert_problem(501, "agent_error");
    assert_eq!(reply.json["agent_code"], "forbidden", "{reply:?}");
    assert_eq!(reply.json["vm"], "web-1", "{reply:?}");
    let facts = (&reply.json["retryable"], &reply.json["may_have_executed"]);
    assert_eq!(facts, (&json!(false), &json!(false)), "{reply:?}");
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("without `{operation}`")), "{reply:?}");
    assert!(detail.contains("--allow"), "{reply:?}");
}

#[tokio::test]
async fn a_disabled_operation_is_a_501_that_names_it() {
    let (daemon, _vm) = restricted_to(&[Capability::Health, Capability::Status]).await;
    let put = async |path: &str, body: Value| daemon.put(&format!("/vms/web-1/{path}"), body).await;
    let post =
        async |path: &str, body: Value| daemon.post(&format!("/vms/web-1/{path}"), body).await;

    let base = json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.1" });
    assert_refused(&put("network", base).await, "network");
    let rich = json!({ "interfaces": [{ "name": "eth0", "addresses": ["10.0.0.2/16"] }] });
    assert_refused(&put("network", rich).await, "network");
    assert_refused(&post("network/confirm", json!({ "id": "net-1" })).await, "network");
    assert_refused(&put("clock", json!({})).await, "clock");
    assert_refused(&post("power", json!({ "action": "reboot" })).await, "power");

    assert_refused(&post("exec", json!({ "command": "true" })).await, "exec");
    let with_env = json!({ "command": "true", "env": { "A": "b" }, "id": "a" });
    assert_refused(&post("exec", with_env).await, "exec");
    assert_refused(&daemon.get("/vms/web-1/execs").await, "exec");
    assert_refused(&daemon.get("/vms/web-1/execs/a").await, "exec");
    assert_refused(&post("execs/a/signal", json!({ "signal": "TERM" })).await, "exec");
}

#[tokio::test]
async fn enabled_operations_are_announced_and_answered() {
    let (daemon, _vm) = restricted_to(&[Capability::Health, Capability::Status]).await;
    let health = daemon.get("/vms/web-1/health").await;
    assert_eq!(health.json["agent"]["features"], json!(["generations", "samples"]), "{health:?}");
    assert_eq!(health.json["agent"]["allowed"], json!(["health", "status"]), "{health:?}");
    let vm = daemon.get("/vms/web-1").await;
    assert_eq!(vm.json["agent"]["allowed"], json!(["health", "status"]), "{vm:?}");
    // The complete network can be read, though it cannot be changed.
    let network = daemon.get("/vms/web-1/network").await;
    assert_eq!(network.status, 200, "{network:?}");
    assert!(network.json["routes"].is_array() && network.json["dns"].is_object(), "{network:?}");

    let all = [
        Capability::Health,
        Capability::Status,
        Capability::Network,
        Capability::Exec,
        Capability::WriteFile,
        Capability::Clock,
        Capability::Power,
        Capability::Files,
        Capability::Forward,
        Capability::Quiesce,
    ];
    let (daemon, _vm) = restricted_to(&all).await;
    let health = daemon.get("/vms/web-1/health").await;
    let features = json!([
        "exec2",
        "exec_limits",
        "network2",
        "clock",
        "power",
        "files",
        "forward",
        "file_session",
        "forward_listen",
        "quiesce",
        "generations",
        "reuse",
        "samples"
    ]);
    assert_eq!(health.json["agent"]["features"], features, "{health:?}");
    assert_eq!(health.json["agent"].get("allowed"), None, "{health:?}");
}

#[tokio::test]
async fn the_reason_for_an_agent_without_health_names_the_missing_operation() {
    let daemon = TestDaemon::start().await;
    let agent = agent_allowing([Capability::Status]).unwrap();
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent)).unwrap();
    let seen = daemon.until_state("web-1", "unreachable").await;
    assert_eq!(seen.json["reason"]["failure"], "agent_error");
    let message = seen.json["reason"]["message"].as_str().unwrap();
    assert!(
        message.contains("started without `health`") && message.contains("--allow"),
        "{message}"
    );
}

#[tokio::test]
async fn without_status_the_network_is_not_read() {
    let (daemon, _vm) = restricted_to(&[Capability::Health, Capability::Exec]).await;
    assert_refused(&daemon.get("/vms/web-1/network").await, "status");
    assert_refused(&daemon.get("/vms/web-1/status").await, "status");
    let ran = daemon.exec("web-1", "true", &[]).await;
    assert_eq!((ran.status, &ran.json["exit_code"]), (200, &json!(0)), "{ran:?}");
}
