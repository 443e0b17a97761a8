//! A program whose output is a stream of JSON lines.

use crate::programs::{Lines, bytes_of, gone, pid_in, until};
use serde_json::{Value, json};
use std::fs;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

const EXEC: &str = "/vms/web-1/exec";

fn sh(script: &str) -> Value {
    json!({ "command": "sh", "args": ["-c", script] })
}

#[tokio::test]
async fn events_arrive_in_order_and_every_byte_at_its_offset() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let gate = daemon.sockets().join("gate");
    let script = format!(
        "echo one; echo err >&2; while ! test -e {}; do sleep 0.01; done; echo two; exit 3",
        gate.display()
    );
    let mut lines = Lines::post(&daemon, EXEC, sh(&script)).await;
    let started = lines.event().await;
    assert_eq!((&started["type"], &started["created"]), (&json!("started"), &json!(true)));
    assert!(started["pid"].as_u64().unwrap() > 0 && started["id"].as_str().unwrap().len() == 32);
    // Events arrive as they happen: the program waits until the test has seen them.
    let mut first = [lines.event().await, lines.event().await];
    first.sort_by_key(|event| event["type"].to_string());
    assert_eq!(first[0], json!({ "type": "stderr", "offset": 0, "data": "err\n" }));
    assert_eq!(first[1], json!({ "type": "stdout", "offset": 0, "data": "one\n" }));
    fs::write(&gate, "").unwrap();
    assert_eq!(lines.event().await, json!({ "type": "stdout", "offset": 4, "data": "two\n" }));
    let exit = lines.event().await;
    assert_eq!((&exit["type"], &exit["exit_code"]), (&json!("exit"), &json!(3)));
    assert_eq!(exit["outcome"], json!({ "type": "exited", "code": 3 }));
    assert!(exit["usage"]["max_rss_bytes"].as_u64().unwrap() > 0);
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn characters_are_not_split_and_invalid_bytes_are_kept() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let gate = |name: &str| daemon.sockets().join(name);
    let wait =
        |name: &str| format!("while ! test -e {}; do sleep 0.01; done", gate(name).display());
    let script = format!(
        "printf 'a\\303'; {}; printf '\\251b'; {}; printf '\\377c\\342\\202'",
        wait("one"),
        wait("two")
    );
    let mut lines = Lines::post(&daemon, EXEC, sh(&script)).await;
    let mut events = vec![lines.event().await, lines.event().await];
    // An incomplete character waits for its rest.
    assert_eq!(events[1], json!({ "type": "stdout", "offset": 0, "data": "a" }));
    fs::write(gate("one"), "").unwrap();
    events.push(lines.event().await);
    assert_eq!(events[2], json!({ "type": "stdout", "offset": 1, "data": "éb" }));
    fs::write(gate("two"), "").unwrap();
    events.extend(lines.rest().await);
    assert_eq!(bytes_of(&events, "stdout", 0), b"a\xc3\xa9b\xffc\xe2\x82");
}

#[tokio::test]
async fn a_broken_connection_is_invisible_in_the_stream() {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Buffered(agent().unwrap(), 10_000);
    let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
    daemon.until_state("web-1", "ready").await;
    let marks = daemon.sockets().join("marks");
    let script = format!(
        "for n in 1 2 3 4 5; do echo x >> {}; seq -w 1000001 1050000 | tee /dev/stderr; done; exit 9",
        marks.display()
    );
    let lines = Lines::post(&daemon, EXEC, sh(&script)).await;
    let cuts = async {
        for step in 1..=3 {
            let reached =
                || fs::read_to_string(&marks).is_ok_and(|text| text.lines().count() >= step);
            until("the program has written its marks", reached).await;
            vm.cut();
        }
    };
    let before = vm.accepted();
    let (events, ()) = tokio::join!(lines.rest(), cuts);
    assert!(vm.accepted() >= before + 3, "the daemon re-attached each time");
    let expected = (1_000_001..=1_050_000).map(|n| format!("{n}\n")).collect::<String>().repeat(5);
    for stream in ["stdout", "stderr"] {
        assert!(bytes_of(&events, stream, 0) == expected.as_bytes(), "{stream}");
    }
    assert_eq!(
        (&events[0]["type"], &events.last().unwrap()["exit_code"]),
        (&json!("started"), &json!(9))
    );
    assert_eq!(fs::read_to_string(&marks).unwrap(), "x\n".repeat(5));
}

#[tokio::test]
async fn a_program_is_lost_with_its_agent_and_is_not_run_again() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    let marks = daemon.sockets().join("marks");
    let script = format!("echo x >> {}; echo out; exec sleep 600", marks.display());
    let mut lines = Lines::post(&daemon, EXEC, sh(&script)).await;
    assert_eq!(lines.event().await["type"], "started");
    assert_eq!(lines.event().await["data"], "out\n");
    vm.switch_to(Behaviour::Agent(agent().unwrap()));
    let error = lines.event().await;
    assert_eq!(
        (&error["type"], &error["problem"]["code"]),
        (&json!("error"), &json!("connection_lost"))
    );
    assert_eq!(error["problem"]["may_have_executed"], true);
    assert_eq!(error["problem"]["vm"], "web-1");
    assert!(error["problem"]["request_id"].as_str().unwrap().len() == 36, "{error}");
    assert_eq!(lines.next().await, None);
    assert_eq!(fs::read_to_string(&marks).unwrap(), "x\n");
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_program() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let file = daemon.sockets().join("pid");
    let script = format!("echo $$ > {}; exec sleep 600", file.display());
    let mut lines = Lines::post(&daemon, EXEC, sh(&script)).await;
    assert_eq!(lines.event().await["type"], "started");
    let pid = pid_in(&file).await;
    drop(lines);
    gone(pid).await;
}

#[tokio::test]
async fn the_end_of_the_callers_deadline_is_reported_in_the_stream() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let path = format!("{EXEC}?timeout_ms=700");
    let mut lines = Lines::post(&daemon, &path, sh("echo $$; exec sleep 600")).await;
    assert_eq!(lines.event().await["type"], "started");
    let pid = lines.event().await["data"].as_str().unwrap().trim().parse().unwrap();
    let error = lines.event().await;
    assert_eq!(
        (&error["type"], &error["problem"]["code"]),
        (&json!("error"), &json!("agent_timeout"))
    );
    assert_eq!(lines.next().await, None);
    gone(pid).await;
}

#[tokio::test]
async fn a_program_is_blocked_while_its_caller_reads_slowly() {
    const TOTAL: u64 = 60_000_000;
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let marker = daemon.sockets().join("marker");
    let script = format!("head -c {TOTAL} /dev/zero | tr '\\0' x; touch {}", marker.display());
    let mut request = sh(&script);
    request["id"] = json!("slow");
    let lines = Lines::post(&daemon, EXEC, request).await;
    let written =
        || async { daemon.get("/vms/web-1/execs/slow").await.json["stdout_bytes"].as_u64() };
    // The output stalls long before its end.
    let (mut last, mut same) = (None, 0);
    while same < 30 {
        let now = written().await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    assert!(last.unwrap() < TOTAL / 2 && !marker.exists(), "{last:?}");
    let events = lines.rest().await;
    assert!(bytes_of(&events, "stdout", 0).len() as u64 == TOTAL);
    assert!(marker.exists());
}

#[tokio::test]
async fn a_second_request_with_the_same_id_gets_the_output_still_kept() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut request = sh("seq -w 1000001 1200000");
    request["id"] = json!("again");
    let first = Lines::post(&daemon, EXEC, request.clone()).await.rest().await;
    assert_eq!(bytes_of(&first, "stdout", 0).len(), 1_600_000);
    let again = Lines::post(&daemon, EXEC, request).await.rest().await;
    assert_eq!(again[0]["created"], false);
    assert_eq!((&again[1]["type"], &again[1]["from"]), (&json!("gap"), &json!(0)));
    let kept_from = again[1]["to"].as_u64().unwrap();
    let kept = bytes_of(&again, "stdout", kept_from);
    assert_eq!(kept_from + kept.len() as u64, 1_600_000);
    assert!(kept.ends_with(b"1200000\n"));
}
