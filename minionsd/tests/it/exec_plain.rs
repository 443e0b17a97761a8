//! Programs in VMs whose agents do not implement execs as objects.

use crate::programs::{Client, Closed, Lines, bytes_of};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use testkit::daemon::{TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Starts a daemon and a VM `old` whose agent implements the base protocol only.
async fn with_base_agent() -> (TestDaemon, Child) {
    let daemon = TestDaemon::start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/peers/base_agent.py");
    let mut agent = Command::new("python3");
    agent.arg(script).arg(daemon.sockets().join("old.vsock")).args(["--hostname", "old"]);
    let mut agent = agent.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    daemon.until_state("old", "ready").await;
    (daemon, agent)
}

const EXEC: &str = "/vms/old/exec";

fn sh(script: &str) -> Value {
    json!({ "command": "sh", "args": ["-c", script] })
}

#[tokio::test]
async fn a_plain_program_runs_in_all_three_forms() {
    let (daemon, _agent) = with_base_agent().await;
    let request = sh("echo out; echo err >&2; exit 3");
    let ran = daemon.post(EXEC, request.clone()).await;
    assert_eq!(
        (ran.status, &ran.json["exit_code"], &ran.json["id"]),
        (200, &json!(3), &Value::Null)
    );
    let events = Lines::post(&daemon, EXEC, request.clone()).await.rest().await;
    assert_eq!((&events[0]["type"], &events[0]["pid"]), (&json!("started"), &json!(0)));
    assert_eq!(
        (bytes_of(&events, "stdout", 0), bytes_of(&events, "stderr", 0)),
        (b"out\n".to_vec(), b"err\n".to_vec())
    );
    let exit =
        json!({ "type": "exit", "exit_code": 3, "outcome": { "type": "exited", "code": 3 } });
    assert_eq!(events.last().unwrap(), &exit);
    let (mut client, attached) = Client::open(&daemon, "old", request).await;
    assert_eq!(
        (&attached["status"], &attached["pid"], &attached["stdin_closed"]),
        (&json!("ok"), &json!(0), &json!(true))
    );
    let (output, end, closed) = client.rest().await;
    assert_eq!((&output[..], &end["outcome"]["code"]), (&b"out\n"[..], &json!(3)));
    assert_eq!(closed, Closed(1000, String::new()));
    let many = json!({ "vms": ["*"], "exec": { "command": "false" } });
    let many = Lines::post(&daemon, "/exec", many).await.rest().await;
    assert_eq!(many[0]["result"]["exit_code"], 1);
}

#[tokio::test]
async fn a_plain_program_that_cannot_be_started_is_a_problem_in_all_forms() {
    let (daemon, _agent) = with_base_agent().await;
    let request = json!({ "command": "/nowhere/to/be/found" });
    daemon.post(EXEC, request.clone()).await.assert_problem(502, "agent_error");
    let stream = daemon.http.post(daemon.url(EXEC)).header("accept", "application/x-ndjson");
    let stream = read(stream.json(&request).send().await.unwrap()).await;
    stream.assert_problem(502, "agent_error");
    let (mut client, problem) = Client::open(&daemon, "old", request).await;
    assert_eq!(problem["code"], "agent_error");
    assert_eq!(client.message().await, Err(Closed(1011, "agent_error".into())));
}

#[tokio::test]
async fn a_slow_plain_program_causes_heartbeats() {
    let (daemon, _agent) = with_base_agent().await;
    let gate = daemon.sockets().join("gate");
    let script = format!("while ! test -e {}; do sleep 0.01; done; echo done", gate.display());
    let mut lines = Lines::post(&daemon, EXEC, sh(&script)).await;
    assert_eq!(lines.next().await.unwrap()["type"], "started");
    assert_eq!(lines.next().await.unwrap()["type"], "heartbeat");
    std::fs::write(&gate, "").unwrap();
    let rest = lines.rest().await;
    assert_eq!(bytes_of(&rest, "stdout", 0), b"done\n");
}

#[tokio::test]
async fn a_request_with_unsupported_fields_names_them_and_is_never_sent() {
    let (daemon, _agent) = with_base_agent().await;
    let marker = daemon.sockets().join("marker");
    for (field, value) in [
        ("timeout_ms", json!(1000)),
        ("env", json!({ "A": "b" })),
        ("cwd", json!("/")),
        ("user", json!("root")),
        ("stdin", json!("")),
        ("stdin_base64", json!("")),
        ("tty", json!({ "rows": 1, "cols": 1 })),
        ("kill_grace_ms", json!(1)),
        ("rlimits", json!({ "nofile": 64 })),
        ("memory_bytes", json!(1 << 20)),
        ("pids", json!(8)),
        ("id", json!("a")),
        ("on_disconnect", json!("detach")),
        ("detach", json!(true)),
    ] {
        let mut request = json!({ "command": "touch", "args": [&marker] });
        request[field] = value;
        for accept in ["application/json", "application/x-ndjson"] {
            let post = daemon.http.post(daemon.url(EXEC)).header("accept", accept);
            let refused = read(post.json(&request).send().await.unwrap()).await;
            refused.assert_problem(501, "agent_too_old").assert_field(field);
            assert!(refused.json["detail"].as_str().unwrap().contains(&format!("`{field}`")));
        }
    }
    let both = json!({ "command": "a", "id": "x", "tty": { "rows": 1, "cols": 1 } });
    let both = daemon.post(EXEC, both).await;
    let detail = both.json["detail"].as_str().unwrap();
    assert!(detail.contains("`tty`, `id`"), "{detail}");
    let interactive = json!({ "command": "touch", "args": [&marker], "interactive": true });
    let (_, problem) = Client::open(&daemon, "old", interactive).await;
    assert_eq!(
        (&problem["code"], &problem["field"]),
        (&json!("agent_too_old"), &json!("interactive"))
    );
    let (_, problem) = Client::open(&daemon, "old", json!({ "attach": "x" })).await;
    assert_eq!(problem["code"], "agent_too_old");
    for path in ["/vms/old/execs", "/vms/old/execs/x", "/vms/old/execs/x/output"] {
        daemon.get(path).await.assert_problem(501, "agent_too_old");
    }
    assert!(!marker.exists());
    for (field, value) in [("max_output_bytes", json!(1)), ("on_disconnect", json!("kill"))] {
        let mut request = json!({ "command": "true" });
        request[field] = value;
        assert_eq!(daemon.post(EXEC, request).await.status, 200, "{field}");
    }
}

#[tokio::test]
async fn an_agent_of_protocol_2_without_objects_supports_time_limits() {
    let daemon = TestDaemon::start().await;
    let reply = json!({
        "status": "ok", "uptime_secs": 1, "hostname": "h", "exit_code": 124, "stdout": "", "stderr": "",
        "outcome": { "type": "timed_out" }, "duration_ms": 5,
        "agent": { "name": "n", "version": "v", "protocol": 2, "boot_id": "b", "instance_id": "i" }
    });
    let reply = reply.to_string();
    let framed =
        [&u32::try_from(reply.len()).unwrap().to_be_bytes()[..], reply.as_bytes()].concat();
    let _vm = FakeVmm::start(daemon.sockets(), "two", Behaviour::Replies(framed)).unwrap();
    daemon.until_state("two", "ready").await;
    let ran = daemon.post("/vms/two/exec", json!({ "command": "a", "timeout_ms": 5 })).await;
    assert_eq!((ran.status, &ran.json["exit_code"]), (200, &json!(124)), "{ran:?}");
    let refused = daemon.post("/vms/two/exec", json!({ "command": "a", "cwd": "/" })).await;
    refused.assert_problem(501, "agent_too_old").assert_field("cwd");
}
