//! The real agent, under one VMM after the other.

use super::{instance, until_generation};
use crate::faults::Events;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use testkit::agent_process::AgentProcess;
use testkit::daemon::{Reply, TestDaemon};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

/// Gives a socket the identity of another one, as if a VMM had bound it. The process that listens stays the same.
fn rebind(dir: &Path, vm: &str) {
    let socket = dir.join(format!("{vm}.vsock"));
    let touched = Command::new("touch").args(["-d", "2001-01-01"]).arg(socket).status().unwrap();
    assert!(touched.success());
}

async fn start(daemon: &TestDaemon, id: &str, script: &str) {
    let body = json!({
        "command": "sh", "args": ["-c", script], "id": id, "on_disconnect": "detach", "detach": true,
    });
    let started = daemon.post("/vms/web-1/exec", body).await;
    assert!(started.status < 300, "{started:?}");
}

async fn execs(daemon: &TestDaemon) -> Vec<Value> {
    let list = daemon.get("/vms/web-1/execs").await;
    list.json["execs"].as_array().unwrap_or_else(|| panic!("{list:?}")).clone()
}

#[tokio::test]
async fn ids_of_programs_belong_to_the_generation_that_started_them() {
    let daemon = TestDaemon::start().await;
    let agent = agent().unwrap();
    let vmm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent.clone())).unwrap();
    daemon.until_state("web-1", "ready").await;
    start(&daemon, "job", "exec sleep 1000").await;
    start(&daemon, "over", "echo of the parent").await;
    daemon.until("/vms/web-1/execs/over", |exec| exec.json["state"] == "ended").await;
    drop(vmm);
    let _vmm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent)).unwrap();
    let vm = until_generation(&daemon, "web-1", 1).await;
    let steps = vm.json["restore"]["steps"].as_array().unwrap();
    assert_eq!(steps[0]["step"], "entropy");
    assert_eq!((&steps[1]["step"], &steps[1]["ok"]), (&json!("clock"), &json!(false)));
    assert!(steps[1]["detail"].as_str().unwrap().contains("without `clock`"), "{steps:?}");

    let listed = execs(&daemon).await;
    let [job] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((&job["id"], &job["started_as"]), (&json!("g0.job"), &json!("job")));
    assert_eq!((&job["inherited"], &job["generation"]), (&json!(true), &json!(0)));
    let gone = daemon.get("/vms/web-1/execs/job").await;
    let detail = gone.assert_problem(410, "exec_gone").json["detail"].as_str().unwrap();
    assert!(
        detail.contains("before it was restored or cloned") && detail.contains("g0.job"),
        "{detail}"
    );
    let ended = daemon.get("/vms/web-1/execs/over/output").await;
    ended.assert_problem(410, "exec_gone");
    // The ids are free: a program of this generation runs, and none of the parent's results is returned.
    for (id, text) in [("over", "new"), ("job", "another")] {
        let body = json!({ "command": "echo", "args": [text], "id": id });
        let ran = daemon.post("/vms/web-1/exec", body).await;
        assert_eq!(
            (ran.status, &ran.json["stdout"]),
            (200, &json!(format!("{text}\n"))),
            "{ran:?}"
        );
    }
    let taken = json!({ "command": "echo", "args": ["mine"], "id": "g0.job" });
    daemon.post("/vms/web-1/exec", taken).await.assert_problem(409, "exec_conflict");
    // The inherited program can be sent signals and waited for.
    let signalled =
        daemon.post("/vms/web-1/execs/g0.job/signal", json!({ "signal": "TERM" })).await;
    assert!(signalled.status < 300, "{signalled:?}");
    let over = daemon.get("/vms/web-1/execs/g0.job?wait_ms=20000").await;
    assert_eq!(over.json["outcome"]["type"], "signaled", "{over:?}");
}

#[tokio::test]
async fn a_client_that_follows_a_program_over_a_restore_loses_it() {
    let daemon = TestDaemon::start().await;
    let _agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
    let before = daemon.until_state("web-1", "ready").await;
    let mut events = Events::of(&daemon).await;
    let body =
        json!({ "command": "sh", "args": ["-c", "echo began; exec sleep 1000"], "id": "job" });
    let call = daemon.post("/vms/web-1/exec", body);
    let restore = async {
        let runs = |execs: &Reply| execs.json["execs"][0]["stdout_bytes"] == 6;
        daemon.until("/vms/web-1/execs", runs).await;
        rebind(daemon.sockets(), "web-1");
        until_generation(&daemon, "web-1", 1).await
    };
    let (call, after) = tokio::join!(call, restore);
    call.assert_problem(502, "connection_lost");
    assert_eq!(after.json["agent"]["parent_instance_id"], instance(&before));
    assert_eq!(after.json["agent"]["boot_id"], before.json["agent"]["boot_id"]);
    events.until("vm.restored").await;
    assert_eq!(execs(&daemon).await[0]["id"], "g0.job");
    daemon.request(reqwest::Method::DELETE, "/vms/web-1/execs/g0.job").send().await.unwrap();
}

#[tokio::test]
async fn two_daemons_restore_a_guest_once_and_a_restart_changes_nothing() {
    let first = TestDaemon::start().await;
    let sockets = first.sockets().to_owned();
    let beside = |config: &mut minionsd::config::Config| config.socket_dir = sockets.clone();
    let second = TestDaemon::with(beside).await;
    let _agent = AgentProcess::start(&sockets, "web-1", &[]);
    for daemon in [&first, &second] {
        daemon.until_state("web-1", "ready").await;
    }
    let before = first.get("/vms/web-1").await;
    let mut events = [Events::of(&first).await, Events::of(&second).await];
    rebind(&sockets, "web-1");
    let [one, two] =
        [until_generation(&first, "web-1", 1).await, until_generation(&second, "web-1", 1).await];
    assert_eq!(instance(&one), instance(&two));
    for events in &mut events {
        events.until("vm.restored").await;
        assert_eq!(events.first("vm.restored")["parent"], instance(&before));
    }
    drop(second);
    let restarted = TestDaemon::with(beside).await;
    let vm = restarted.until_state("web-1", "ready").await;
    assert_eq!((instance(&vm), &vm.json["agent"]["generation"]), (instance(&one), &json!(1)));
    assert_eq!(vm.json["restore"], Value::Null, "this daemon has seen no restore");
}

#[tokio::test]
async fn an_attached_stream_ends_when_the_guest_is_declared_restored_by_hand() {
    let daemon = TestDaemon::start().await;
    let _agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
    daemon.until_state("web-1", "ready").await;
    let body =
        json!({ "command": "sh", "args": ["-c", "echo began; exec sleep 1000"], "id": "job" });
    let call = daemon.post("/vms/web-1/exec", body);
    let restore = async {
        daemon.until("/vms/web-1/execs", |execs| execs.json["execs"][0]["stdout_bytes"] == 6).await;
        daemon.post("/vms/web-1/restored", json!({})).await
    };
    let (call, report) = tokio::join!(call, restore);
    assert_eq!((report.status, &report.json["generation"]), (200, &json!(1)), "{report:?}");
    call.assert_problem(502, "connection_lost");
    assert!(call.json["detail"].as_str().unwrap().contains("restored or cloned"), "{call:?}");
    daemon.request(reqwest::Method::DELETE, "/vms/web-1/execs/g0.job").send().await.unwrap();
}
