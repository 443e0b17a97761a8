//! Programs that outlive the request that started them.

use crate::programs::{Lines, bytes_of, gone, until};
use serde_json::{Value, json};
use testkit::daemon::{Reply, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

const EXEC: &str = "/vms/web-1/exec";
const EXECS: &str = "/vms/web-1/execs";

async fn detached(daemon: &TestDaemon, id: &str, script: &str, more: Value) -> Value {
    let mut request = json!({ "command": "sh", "args": ["-c", script], "id": id, "detach": true });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let started = daemon.post(EXEC, request).await;
    assert_eq!((started.status, &started.json["id"]), (202, &json!(id)), "{started:?}");
    started.json
}

async fn delete(daemon: &TestDaemon, id: &str) -> Reply {
    read(daemon.http.delete(daemon.url(&format!("{EXECS}/{id}"))).send().await.unwrap()).await
}

async fn output(daemon: &TestDaemon, id: &str, query: &str) -> Lines {
    let url = daemon.url(&format!("{EXECS}/{id}/output{query}"));
    Lines::of(daemon.http.get(url).send().await.unwrap())
}

#[tokio::test]
async fn a_detached_program_can_be_listed_read_followed_and_ended() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let script = "echo one; cat; echo two >&2; exec sleep 600";
    let started = detached(&daemon, "job", script, json!({ "stdin": "input\n" })).await;
    assert_eq!(
        (&started["state"], &started["on_disconnect"]),
        (&json!("running"), &json!("detach"))
    );
    let path = format!("{EXECS}/job");
    let info = daemon
        .until(&path, |info| info.json["stderr_bytes"] == 4 && info.json["attached"] == false)
        .await;
    assert_eq!((&info.json["stdout_bytes"], &info.json["stdin_bytes"]), (&json!(10), &json!(6)));
    assert_eq!((&info.json["command"], &info.json["exit_code"]), (&json!("sh"), &Value::Null));
    assert_eq!(daemon.get(EXECS).await.json["execs"][0]["id"], "job");

    let replay = output(&daemon, "job", "").await.rest().await;
    assert_eq!((&replay[0]["type"], &replay[0]["created"]), (&json!("started"), &json!(false)));
    assert_eq!(bytes_of(&replay, "stdout", 0), b"one\ninput\n");
    assert_eq!(bytes_of(&replay, "stderr", 0), b"two\n");
    assert_eq!(replay.last().unwrap(), &json!({ "type": "end" }));
    let rest = output(&daemon, "job", "?stdout_offset=4&stderr_offset=4").await.rest().await;
    assert_eq!(bytes_of(&rest, "stdout", 4), b"input\n");
    assert_eq!(bytes_of(&rest, "stderr", 4), b"");

    let mut followed =
        output(&daemon, "job", "?follow=true&stdout_offset=10&stderr_offset=4").await;
    assert_eq!(followed.event().await["type"], "started");
    let ended = delete(&daemon, "job").await;
    assert_eq!((ended.status, &ended.json["state"]), (200, &json!("ended")), "{ended:?}");
    assert_eq!(ended.json["outcome"]["type"], "signaled");
    let exit = followed.event().await;
    assert_eq!((&exit["type"], &exit["exit_code"]), (&json!("exit"), &ended.json["exit_code"]));
    assert_eq!(followed.next().await, None);
    gone(started["pid"].as_u64().unwrap().try_into().unwrap()).await;
    daemon.get(&path).await.assert_problem(410, "exec_gone").assert_field("id");
}

#[tokio::test]
async fn followers_see_all_output_and_do_not_affect_the_program() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    let (gate, id) = (daemon.sockets().join("gate"), "watched");
    let script =
        format!("echo one; while ! test -e {}; do sleep 0.01; done; echo two", gate.display());
    detached(&daemon, id, &script, json!({})).await;
    let mut both =
        [output(&daemon, id, "?follow=true").await, output(&daemon, id, "?follow=true").await];
    for follower in &mut both {
        assert_eq!(follower.event().await["type"], "started");
        assert_eq!(follower.event().await["data"], "one\n");
    }
    // The connection of a follower may break, as any other.
    vm.cut();
    let [first, second] = both;
    drop(first);
    std::fs::write(&gate, "").unwrap();
    let rest = second.rest().await;
    assert_eq!(bytes_of(&rest, "stdout", 4), b"two\n");
    assert_eq!(rest.last().unwrap()["exit_code"], 0);
    let replay = output(&daemon, id, "").await.rest().await;
    assert_eq!(bytes_of(&replay, "stdout", 0), b"one\ntwo\n");
    assert_eq!(replay.last().unwrap()["type"], "exit");
}

#[tokio::test]
async fn a_wait_returns_at_the_end_of_the_program_or_after_its_time() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    detached(
        &daemon,
        "waits",
        "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done",
        json!({}),
    )
    .await;
    let path = format!("{EXECS}/waits");
    daemon.until(&path, |info| info.json["stdout_bytes"] == 3).await;
    let now = daemon.get(&format!("{path}?wait_ms=50")).await;
    assert_eq!((now.status, &now.json["state"]), (200, &json!("running")));
    let (end, signal) = (format!("{path}?wait_ms=30000"), format!("{path}/signal"));
    let (ended, sent) =
        tokio::join!(daemon.get(&end), daemon.post(&signal, json!({ "signal": "TERM" })),);
    assert_eq!((sent.status, &sent.json["status"]), (200, &json!("ok")), "{sent:?}");
    assert!(sent.json["message"].is_string());
    assert_eq!((ended.status, &ended.json["exit_code"]), (200, &json!(9)), "{ended:?}");
    let late = daemon.post(&format!("{path}/signal"), json!({ "signal": "KILL" })).await;
    late.assert_problem(409, "exec_conflict");
}

#[tokio::test]
async fn input_larger_than_the_window_reaches_a_program_that_reads_late() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let gate = daemon.sockets().join("gate");
    let script = format!("while ! test -e {}; do sleep 0.01; done; wc -c", gate.display());
    detached(&daemon, "long", &script, json!({ "stdin": "x".repeat(2_000_000) })).await;
    std::fs::write(&gate, "").unwrap();
    let info = daemon.get(&format!("{EXECS}/long?wait_ms=30000")).await;
    assert_eq!(info.json["exit_code"], 0, "{info:?}");
    let replay = output(&daemon, "long", "").await.rest().await;
    assert_eq!(bytes_of(&replay, "stdout", 0), b"2000000\n");
}

#[tokio::test]
async fn an_invalid_request_about_an_exec_has_a_code_and_a_field() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    detached(&daemon, "there", "exec sleep 600", json!({})).await;
    for path in ["-x", "a%2fb", "%20", "a%00"] {
        let reply = daemon.get(&format!("{EXECS}/{path}")).await;
        reply.assert_problem(422, "invalid_exec_id").assert_field("id");
    }
    for path in ["/nope", "/nope/output", "/nope/output?follow=true", "/nope?wait_ms=1000"] {
        let reply = daemon.get(&format!("{EXECS}{path}")).await;
        reply.assert_problem(410, "exec_gone").assert_field("id");
        assert_eq!(reply.json["vm"], "web-1");
    }
    delete(&daemon, "nope").await.assert_problem(410, "exec_gone");
    for signal in ["", "NOPE", "0", "65", "SIG"] {
        let body = json!({ "signal": signal });
        let reply = daemon.post(&format!("{EXECS}/there/signal"), body).await;
        reply.assert_problem(422, "invalid_signal").assert_field("signal");
    }
    let reply = daemon.post(&format!("{EXECS}/there/signal"), json!({})).await;
    reply.assert_problem(422, "invalid_request").assert_field("signal");
    let body = json!({ "signal": "TERM" });
    daemon.post(&format!("{EXECS}/nope/signal"), body).await.assert_problem(410, "exec_gone");
    for (query, field) in [
        ("?wait_ms=86400001", "wait_ms"),
        ("?wait_ms=soon", "wait_ms"),
        ("?timeout_ms=0", "timeout_ms"),
        ("?stay=1", "stay"),
    ] {
        let reply = daemon.get(&format!("{EXECS}/there{query}")).await;
        reply.assert_problem(400, "invalid_request").assert_field(field);
    }
    for (query, status, field) in [
        ("?stdout_offset=-1", 400, "stdout_offset"),
        ("?follow=maybe", 400, "follow"),
        ("?stderr_offset=1", 422, "stderr_offset"),
    ] {
        let reply = daemon.get(&format!("{EXECS}/there/output{query}")).await;
        reply.assert_problem(status, "invalid_request").assert_field(field);
    }
    delete(&daemon, "there").await;
}

#[tokio::test]
async fn a_broken_connection_does_not_end_a_detached_program() {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Buffered(agent().unwrap(), 10_000);
    let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
    daemon.until_state("web-1", "ready").await;
    let marker = daemon.sockets().join("marker");
    let gate = daemon.sockets().join("gate");
    let script = format!(
        "while ! test -e {}; do sleep 0.01; done; touch {}",
        gate.display(),
        marker.display()
    );
    detached(&daemon, "stays", &script, json!({})).await;
    vm.cut();
    std::fs::write(&gate, "").unwrap();
    until("the program continued", || marker.exists()).await;
    daemon.until(&format!("{EXECS}/stays"), |info| info.json["exit_code"] == 0).await;
}

/// Starts an agent that implements execs as objects but no newer feature, and sends this reply to every
/// request.
async fn with_older_agent(more: Value) -> (TestDaemon, FakeVmm) {
    let daemon = TestDaemon::start().await;
    let mut reply = json!({
        "status": "ok", "uptime_secs": 1, "hostname": "h",
        "agent": {
            "name": "n", "version": "v", "protocol": 2, "boot_id": "b", "instance_id": "i",
            "features": ["exec2"]
        },
    });
    reply.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = reply.to_string();
    let framed =
        [&u32::try_from(reply.len()).unwrap().to_be_bytes()[..], reply.as_bytes()].concat();
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Replies(framed)).unwrap();
    daemon.until_state("web-1", "ready").await;
    (daemon, vm)
}

#[tokio::test]
async fn a_limit_is_never_sent_to_an_agent_that_would_ignore_it() {
    let (daemon, _vm) = with_older_agent(json!({})).await;
    for (field, value) in [("memory_bytes", json!(1 << 20)), ("pids", json!(8))] {
        let mut request = json!({ "command": "true" });
        request[field] = value;
        let refused = daemon.post(EXEC, request.clone()).await;
        refused.assert_problem(501, "agent_too_old").assert_field(field);
        assert_eq!(refused.json["may_have_executed"], false);
        request["detach"] = json!(true);
        daemon.post(EXEC, request).await.assert_problem(501, "agent_too_old").assert_field(field);
    }
}

#[tokio::test]
async fn a_lost_program_is_listed_with_the_number_of_running_processes() {
    let reason = "the agent was restarted at 2026-01-31T12:00:00Z";
    let info = json!({
        "id": "old", "command": "sleep", "args": ["9"], "tty": false, "pid": 7, "age_ms": 5,
        "attached": false, "on_disconnect": "kill", "stdout_bytes": 0, "stdout_kept_from": 0,
        "stderr_bytes": 0, "stderr_kept_from": 0, "stdin_bytes": 0,
        "outcome": { "type": "lost", "reason": reason }, "left_running": 2
    });
    let mut reply = info.clone();
    reply["execs"] = json!([info]);
    let (daemon, _vm) = with_older_agent(reply).await;
    let listed = daemon.get(EXECS).await.json["execs"][0].clone();
    for shown in [listed, daemon.get(&format!("{EXECS}/old?wait_ms=5000")).await.json] {
        assert_eq!((&shown["state"], &shown["left_running"]), (&json!("lost"), &json!(2)));
        assert_eq!(
            (&shown["outcome"]["reason"], &shown["exit_code"]),
            (&json!(reason), &json!(125))
        );
    }
}

#[tokio::test]
async fn programs_one_after_another_share_a_connection() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    daemon.exec("web-1", "true", &[]).await;
    let before = vm.accepted();
    for number in 0..20 {
        let script = format!("cat; echo {number}; exit {number}");
        let request = json!({ "command": "sh", "args": ["-c", script], "stdin": "input\n" });
        let ran = daemon.post(EXEC, request).await.json;
        assert_eq!(
            (&ran["exit_code"], &ran["stdout"]),
            (&json!(number), &json!(format!("input\n{number}\n")))
        );
    }
    assert!(vm.accepted() <= before + 1, "{} dials for 20 programs", vm.accepted() - before);
    let figures = daemon.get("/vms/web-1").await.json["pool"].clone();
    assert_eq!(figures["streams"], 0, "{figures}");
}
