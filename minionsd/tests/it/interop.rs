//! Interoperability in both directions with peers that implement only the base protocol. They are written in
//! another language, from the bytes in the documentation, and share no code with this workspace.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/peers")
}

fn python(script: &str) -> Command {
    let mut python = Command::new("python3");
    python.arg(peers().join(script)).stdout(Stdio::piped()).kill_on_drop(true);
    python
}

/// Starts the base agent and waits until it listens.
async fn base_agent(socket: &Path, log: &Path) -> Child {
    let mut agent = python("base_agent.py");
    let mut agent =
        agent.arg(socket).args(["--hostname", "old", "--log"]).arg(log).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line, "listening\n");
    agent
}

#[tokio::test]
async fn a_base_agent_is_driven_with_base_requests_only() {
    let daemon = TestDaemon::start().await;
    let log = daemon.sockets().join("requests");
    let _agent = base_agent(&daemon.sockets().join("old.vsock"), &log).await;
    let vm = daemon.until_state("old", "ready").await;
    assert_eq!((&vm.json["hostname"], &vm.json["agent"]), (&json!("old"), &Value::Null));
    assert_eq!(daemon.get("/vms/old/health").await.json["hostname"], "old");
    assert!(daemon.get("/vms/old/status").await.json["memory_total_mb"].is_u64());
    let ran = daemon.exec("old", "sh", &["-c", "echo hi; exit 3"]).await;
    assert_eq!((&ran.json["exit_code"], &ran.json["stdout"]), (&json!(3), &json!("hi\n")));
    let network = json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.1", "dns": ["1.1.1.1"] });
    assert_eq!(daemon.put("/vms/old/network", network).await.json["message"], "network configured");
    let requests = std::fs::read_to_string(log).unwrap();
    let requests: Vec<Value> =
        requests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(requests.len() >= 5);
    for request in requests {
        let mut fields: Vec<_> = request.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        let base: &[&str] = match request["type"].as_str().unwrap() {
            "health_check" | "report_status" => &["type"],
            "exec" => &["args", "command", "type"],
            "configure_network" => &["dns", "gateway", "ip", "type"],
            other => panic!("{other} is not in the base protocol"),
        };
        assert_eq!(fields, base);
    }
}

#[tokio::test]
async fn an_operation_unknown_to_a_base_agent_is_rejected_not_ignored() {
    let daemon = TestDaemon::start().await;
    let log = daemon.sockets().join("requests");
    let _agent = base_agent(&daemon.sockets().join("old.vsock"), &log).await;
    daemon.until_state("old", "ready").await;
    let body = json!({ "command": "true", "timeout_ms": 1000 });
    let refused = daemon.post("/vms/old/exec", body).await;
    refused.assert_problem(501, "agent_too_old");
    assert!(refused.json["detail"].as_str().unwrap().contains("timeout_ms"), "{refused:?}");
    daemon.get("/vms/old/network").await.assert_problem(501, "agent_too_old");
    // No part of a request is dropped silently.
    let network = json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.1", "mtu": 1400 });
    let refused = daemon.put("/vms/old/network", network).await;
    refused.assert_problem(501, "agent_too_old").assert_field("mtu");
    let confirm = daemon.post("/vms/old/network/confirm", json!({ "id": "net-1" })).await;
    confirm.assert_problem(501, "agent_too_old");
    assert!(!std::fs::read_to_string(log).unwrap().contains("exec"));
}

#[tokio::test]
async fn a_base_host_tool_drives_this_agent() {
    let dir = tempfile::tempdir().unwrap();
    let vm = FakeVmm::start(dir.path(), "new", Behaviour::Agent(agent().unwrap())).unwrap();
    let written = dir.path().join("a/file");
    let mut host = python("base_host.py");
    let host = host.arg(vm.path()).arg("session").stdin(Stdio::piped()).spawn();
    let mut host = host.unwrap();
    let requests = [
        json!({ "type": "health_check" }),
        json!({ "type": "exec", "command": "sh", "args": ["-c", "echo hi; exit 3"] }),
        json!({ "type": "make_coffee" }),
        json!({ "type": "exec", "command": "/nowhere", "args": [] }),
        json!({ "type": "report_status" }),
        json!({ "type": "write_file", "path": written, "content": "x", "mode": 384, "append": false }),
        json!({ "type": "health_check" }),
    ];
    let mut stdin = host.stdin.take().unwrap();
    for request in &requests {
        stdin.write_all(format!("{request}\n").as_bytes()).await.unwrap();
    }
    drop(stdin);
    let output = host.wait_with_output().await.unwrap();
    // Two of the replies are errors, so the exit code is 1.
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let replies: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let statuses: Vec<_> = replies.iter().map(|reply| reply["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["ok", "ok", "error", "error", "ok", "ok", "ok"]);
    assert_eq!((&replies[1]["exit_code"], &replies[1]["stdout"]), (&json!(3), &json!("hi\n")));
    assert_eq!(std::fs::read_to_string(written).unwrap(), "x");
}

#[tokio::test]
async fn the_tests_of_the_peers_and_of_the_documented_bytes_pass() {
    let checked = Command::new("python3")
        .args(["-m", "unittest", "discover", "-s"])
        .arg(peers())
        .output()
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && report.contains("Ran "), "{report}");
}
