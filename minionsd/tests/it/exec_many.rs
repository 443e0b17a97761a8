//! A program that runs in many VMs.

use crate::programs::{Lines, gone, pid_in};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

async fn vms(daemon: &TestDaemon, names: &[&str]) -> Vec<FakeVmm> {
    let start = |name: &&str| {
        FakeVmm::start(daemon.sockets(), name, Behaviour::Agent(agent().unwrap())).unwrap()
    };
    let vms = names.iter().map(start).collect();
    for name in names {
        daemon.until_state(name, "ready").await;
    }
    vms
}

fn sh(script: &str) -> Value {
    json!({ "command": "sh", "args": ["-c", script] })
}

fn named(events: &[Value], kind: &str) -> BTreeSet<String> {
    let events = events.iter().filter(|event| event["type"] == kind);
    events.map(|event| event["vm"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_vm_has_a_line_and_a_hanging_vm_does_not_delay_others() {
    let daemon = TestDaemon::start().await;
    let names: Vec<String> = (0..50).map(|n| format!("vm-{n:02}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let vms = vms(&daemon, &all).await;
    vms[17].switch_to(Behaviour::Silent);
    vms[23].switch_to(Behaviour::Refuses);
    let body = json!({ "vms": ["vm-*"], "exec": sh("echo hi; exit 3"), "concurrency": 8 });
    let events = Lines::post(&daemon, "/exec?timeout_ms=5000", body).await.rest().await;
    let problems = named(&events, "problem");
    assert_eq!(problems, ["vm-17", "vm-23"].map(String::from).into());
    assert_eq!(named(&events, "result").len(), 48);
    for event in &events {
        match event["type"].as_str().unwrap() {
            "result" => {
                assert_eq!(
                    (&event["result"]["exit_code"], &event["result"]["stdout"]),
                    (&json!(3), &json!("hi\n"))
                );
            }
            "problem" => {
                assert_eq!(event["problem"]["vm"], event["vm"]);
                let executed = event["problem"]["may_have_executed"] == true;
                let outcome = if executed { "lost" } else { "failed_to_start" };
                assert_eq!(event["outcome"]["type"], outcome, "{event}");
            }
            _ => {}
        }
    }
    let summary = json!({
        "type": "summary", "total": 50, "succeeded": 0, "failed": 48, "problems": 2, "skipped": 0
    });
    assert_eq!(events.last().unwrap(), &summary);
}

#[tokio::test]
async fn names_and_patterns_select_each_vm_once() {
    let daemon = TestDaemon::start().await;
    let _vms = vms(&daemon, &["db-1", "web-1", "web-2", "web-10"]).await;
    for (patterns, selected) in [
        (json!(["web-1"]), vec!["web-1"]),
        (json!(["web-?", "web-1"]), vec!["web-1", "web-2"]),
        (json!(["web-*"]), vec!["web-1", "web-10", "web-2"]),
        (json!(["*"]), vec!["db-1", "web-1", "web-10", "web-2"]),
        (json!(["*b-1", "web-2"]), vec!["db-1", "web-1", "web-2"]),
    ] {
        let body = json!({ "vms": patterns, "exec": { "command": "true" } });
        let events = Lines::post(&daemon, "/exec", body).await.rest().await;
        assert_eq!(named(&events, "result"), selected.into_iter().map(String::from).collect());
        assert_eq!(events.last().unwrap()["failed"], 0);
    }
}

#[tokio::test]
async fn an_invalid_request_for_many_vms_is_a_problem() {
    let daemon = TestDaemon::start().await;
    let _vms = vms(&daemon, &["web-1"]).await;
    let with = |vms: Value, more: Value| {
        let mut body = json!({ "vms": vms, "exec": { "command": "true" } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, status, code, field) in [
        (with(json!([]), json!({})), 422, "invalid_request", "vms"),
        (with(json!(["web-1", "gone"]), json!({})), 404, "vm_not_found", "vms[1]"),
        (with(json!(["db-*"]), json!({})), 404, "vm_not_found", "vms[0]"),
        (with(json!(["../x"]), json!({})), 422, "invalid_request", "vms[0]"),
        (with(json!(["a/*"]), json!({})), 422, "invalid_request", "vms[0]"),
        (with(json!(vec!["*"; 257]), json!({})), 422, "invalid_request", "vms"),
        (with(json!(["*"]), json!({ "concurrency": 0 })), 422, "invalid_request", "concurrency"),
        (with(json!(["*"]), json!({ "concurrency": 257 })), 422, "invalid_request", "concurrency"),
        (
            with(json!(["*"]), json!({ "exec": { "command": "" } })),
            422,
            "invalid_request",
            "exec.command",
        ),
        (
            with(json!(["*"]), json!({ "exec": { "command": "a", "detach": true } })),
            422,
            "invalid_request",
            "exec.detach",
        ),
        (
            with(json!(["*"]), json!({ "exec": { "command": "a", "env": { "": "" } } })),
            422,
            "invalid_env",
            "exec.env.",
        ),
    ] {
        let reply = daemon.post("/exec", body).await;
        reply.assert_problem(status, code).assert_field(field);
    }
}

#[tokio::test]
async fn a_missing_program_is_reported_for_each_vm() {
    let daemon = TestDaemon::start().await;
    let _vms = vms(&daemon, &["web-1", "web-2"]).await;
    let body = json!({ "vms": ["*"], "exec": { "command": "/nowhere" } });
    let events = Lines::post(&daemon, "/exec", body).await.rest().await;
    assert_eq!(named(&events, "problem").len(), 2);
    for event in &events[..2] {
        assert_eq!(event["problem"]["code"], "command_not_found");
        assert_eq!(
            event["outcome"],
            json!({ "type": "failed_to_start", "kind": "not_found", "errno": 2 })
        );
        assert!(!event["problem"]["request_id"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn with_fail_fast_the_vms_after_a_failure_are_skipped() {
    let daemon = TestDaemon::start().await;
    let _vms = vms(&daemon, &["a", "b", "c", "d"]).await;
    let once = daemon.sockets().join("once");
    // The first program to run succeeds, the second one fails.
    let script = format!("mkdir {}", once.display());
    let body = json!({ "vms": ["*"], "exec": sh(&script), "concurrency": 1, "fail_fast": true });
    let events = Lines::post(&daemon, "/exec", body).await.rest().await;
    let lines: Vec<_> = events
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["vm"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        lines,
        [("result", "a"), ("result", "b"), ("skipped", "c"), ("skipped", "d"), ("summary", "")]
    );
    assert_eq!(events[1]["result"]["exit_code"], 1);
    let all = json!({ "vms": ["*"], "exec": sh(&script), "concurrency": 1 });
    let all = Lines::post(&daemon, "/exec", all).await.rest().await;
    assert_eq!((&all[4]["failed"], &all[4]["skipped"]), (&json!(4), &json!(0)));
}

#[tokio::test]
async fn a_caller_that_leaves_ends_all_programs() {
    let daemon = TestDaemon::start().await;
    let names = ["a", "b", "c"];
    let _vms = vms(&daemon, &names).await;
    let dir = daemon.sockets().join("pids");
    std::fs::create_dir(&dir).unwrap();
    // Each program writes a separate file: it does not know the name of its VM.
    let script = format!("f=$(mktemp -p {}); echo $$ > $f; exec sleep 600", dir.display());
    let body = json!({ "vms": names, "exec": sh(&script) });
    let mut lines = Lines::post(&daemon, "/exec", body).await;
    let files = || std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
    crate::programs::until("all programs run", || files().count() == 3).await;
    // The daemon sends a sign of life while nothing else happens.
    assert_eq!(lines.next().await.unwrap()["type"], "heartbeat");
    let mut pids = Vec::new();
    for file in files() {
        pids.push(pid_in(&file).await);
    }
    drop(lines);
    for pid in pids {
        gone(pid).await;
    }
}
