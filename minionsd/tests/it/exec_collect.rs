//! Programs whose result is returned as a whole.

use crate::programs::{gone, pid_in};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::daemon::{TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::task::JoinSet;

const EXEC: &str = "/vms/web-1/exec";

/// Returns a request for `sh -c script` with more fields.
fn sh(script: &str, more: Value) -> Value {
    let mut request = json!({ "command": "sh", "args": ["-c", script] });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn a_request_that_cannot_be_run_has_a_specific_code_and_field() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let long = "x".repeat(3_000_000);
    let big_base64 = json!({ "stdin": "a", "stdin_base64": "YQ==" });
    let tty = |rows: u16| json!({ "tty": { "rows": rows, "cols": 80 } });
    for (more, status, code, field) in [
        (json!({ "env": { "A=B": "c" } }), 422, "invalid_env", "env.A=B"),
        (json!({ "env": { "": "c" } }), 422, "invalid_env", "env."),
        (json!({ "env": { "A": "\0" } }), 422, "invalid_env", "env.A"),
        (json!({ "env": { "A": 7 } }), 422, "invalid_request", "env.A"),
        (json!({ "cwd": "tmp" }), 422, "invalid_request", "cwd"),
        (json!({ "cwd": "/nowhere/at/all" }), 422, "cwd_not_found", "cwd"),
        (json!({ "user": "nobody-of-this-name" }), 422, "user_not_found", "user"),
        (json!({ "user": "" }), 422, "invalid_request", "user"),
        (json!({ "id": "-x" }), 422, "invalid_exec_id", "id"),
        (json!({ "id": "a/b" }), 422, "invalid_exec_id", "id"),
        (json!({ "id": "" }), 422, "invalid_exec_id", "id"),
        (json!({ "stdin_base64": "?" }), 422, "invalid_request", "stdin_base64"),
        (big_base64, 422, "invalid_request", "stdin_base64"),
        (json!({ "timeout_ms": 0 }), 422, "invalid_request", "timeout_ms"),
        (json!({ "timeout_ms": 86_400_001 }), 422, "invalid_request", "timeout_ms"),
        (json!({ "kill_grace_ms": 60_001 }), 422, "invalid_request", "kill_grace_ms"),
        (json!({ "rlimits": { "files": 1 } }), 422, "invalid_request", "rlimits"),
        (json!({ "memory_bytes": 0 }), 422, "invalid_request", "memory_bytes"),
        (json!({ "memory_bytes": 1_u64 << 63 }), 422, "invalid_request", "memory_bytes"),
        (json!({ "pids": 0 }), 422, "invalid_request", "pids"),
        (json!({ "pids": 1_u64 << 63 }), 422, "invalid_request", "pids"),
        (json!({ "max_output_bytes": 67_108_865 }), 422, "invalid_request", "max_output_bytes"),
        (json!({ "interactive": true }), 422, "invalid_request", "interactive"),
        (json!({ "on_disconnect": "stay" }), 422, "invalid_request", "on_disconnect"),
        (tty(0), 422, "invalid_request", "tty.rows"),
        (
            json!({ "detach": true, "on_disconnect": "kill" }),
            422,
            "invalid_request",
            "on_disconnect",
        ),
    ] {
        for accept in ["application/json", "application/x-ndjson"] {
            let request = daemon.http.post(daemon.url(EXEC)).header("accept", accept);
            let body = sh("exit 1", more.clone());
            let reply = read(request.json(&body).send().await.unwrap()).await;
            reply.assert_problem(status, code).assert_field(field);
            assert_eq!(reply.json["may_have_executed"], false, "{more}");
        }
    }
    for (command, args, code) in [
        ("/nowhere/to/be/found", vec![], "command_not_found"),
        ("/etc/passwd", vec![], "command_not_executable"),
        // Longer than the wire accepts; and longer than a kernel accepts for a single argument.
        ("true", vec![long.as_str()], "argument_list_too_long"),
        ("true", vec![&long[..200_000]], "argument_list_too_long"),
    ] {
        for accept in ["application/json", "application/x-ndjson"] {
            let body = json!({ "command": command, "args": args });
            let request = daemon.http.post(daemon.url(EXEC)).header("accept", accept);
            let reply = read(request.json(&body).send().await.unwrap()).await;
            reply.assert_problem(422, code);
            assert_eq!(reply.json["vm"], "web-1");
        }
    }
}

#[tokio::test]
async fn a_program_reads_its_whole_input_and_then_end_of_file() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let cat = |more: Value| sh("cat", more);
    let text = daemon.post(EXEC, cat(json!({ "stdin": "grüße\n" }))).await;
    assert_eq!((&text.json["stdout"], &text.json["exit_code"]), (&json!("grüße\n"), &json!(0)));
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let bytes = cat(json!({ "stdin_base64": STANDARD.encode(&all) }));
    let bytes = daemon.post(EXEC, bytes).await;
    let back = STANDARD.decode(bytes.json["stdout_base64"].as_str().unwrap()).unwrap();
    assert!(back == all);
    assert_eq!(daemon.post(EXEC, cat(json!({ "stdin": "" }))).await.json["stdout"], "");
    // No input at all; the program does not wait for any.
    assert_eq!(daemon.post(EXEC, cat(json!({}))).await.json["stdout"], "");
    // More than any window; and a program that does not read it.
    let long = "0123456789abcdef".repeat(200_000);
    let counted = daemon.post(EXEC, sh("wc -c", json!({ "stdin": long }))).await;
    assert_eq!(counted.json["stdout"], "3200000\n");
    let ignored = daemon.post(EXEC, sh("exec <&-; echo done", json!({ "stdin": long }))).await;
    assert_eq!(ignored.json["stdout"], "done\n");
}

#[tokio::test]
async fn a_program_gets_the_requested_environment_and_limits() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let more = json!({
        "env": { "GREETING": "hello" }, "cwd": "/tmp", "rlimits": { "nofile": 77 },
        "tty": { "rows": 11, "cols": 22 }, "timeout_ms": 20_000
    });
    let script = "echo $GREETING; pwd; ulimit -n; stty size; tty >&2";
    let ran = daemon.post(EXEC, sh(script, more)).await;
    let output = ran.json["stdout"].as_str().unwrap();
    for line in ["hello\r\n", "/tmp\r\n", "77\r\n", "11 22\r\n", "/dev/pts/"] {
        assert!(output.contains(line), "{line:?} in {output:?}");
    }
    assert_eq!((&ran.json["status"], &ran.json["stderr"]), (&json!("ok"), &json!("")));
    assert_eq!(ran.json["outcome"], json!({ "type": "exited", "code": 0 }));
    assert_eq!(ran.json["id"].as_str().unwrap().len(), 32);
    assert!(ran.json["usage"]["max_rss_bytes"].as_u64().unwrap() > 0, "{ran:?}");
    let late = daemon.post(EXEC, sh("sleep 600", json!({ "timeout_ms": 100 }))).await;
    assert_eq!(
        (&late.json["exit_code"], &late.json["outcome"]["type"]),
        (&json!(124), &json!("timed_out"))
    );
}

#[tokio::test]
async fn output_that_is_not_utf8_is_also_returned_as_base64() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let ran = daemon.exec("web-1", "printf", &[r"a\377b\303\n"]).await;
    assert_eq!(ran.json["stdout"], "a\u{fffd}b\u{fffd}\n");
    assert_eq!(ran.json["stdout_base64"], STANDARD.encode(b"a\xffb\xc3\n"));
    assert_eq!(ran.json["stdout_bytes"], 5);
    assert_eq!((&ran.json["stderr"], &ran.json["stderr_base64"]), (&json!(""), &Value::Null));
}

#[tokio::test]
async fn the_beginning_and_the_end_of_long_output_are_kept() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    // 20 MB: 2 500 000 lines of 8 bytes.
    let script = "seq -w 1000001 3500000; echo err >&2";
    let some = daemon.post(EXEC, sh(script, json!({ "max_output_bytes": 1_000_000 }))).await;
    assert_eq!(
        (&some.json["exit_code"], &some.json["stdout_bytes"]),
        (&json!(0), &json!(20_000_000))
    );
    assert_eq!(
        (&some.json["stdout_truncated"], &some.json["stderr_truncated"]),
        (&json!(true), &json!(false))
    );
    let text = some.json["stdout"].as_str().unwrap();
    assert!(text.starts_with("1000001\n1000002\n") && text.ends_with("3499999\n3500000\n"));
    let (head, rest) = text.split_once("\n[… ").unwrap();
    let (missing, tail) = rest.split_once(" bytes omitted …]\n").unwrap();
    assert_eq!((head.len(), tail.len()), (500_000, 500_000));
    assert_eq!(missing, "19000000");
    let all = daemon.post(EXEC, sh(script, json!({ "max_output_bytes": 20_000_000 }))).await;
    assert_eq!(all.json["stdout_truncated"], false);
    let numbers: Vec<u64> =
        all.json["stdout"].as_str().unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1_000_001..=3_500_000));
    let none = daemon.post(EXEC, sh("echo hi", json!({ "max_output_bytes": 0 }))).await;
    assert_eq!(
        (&none.json["stdout"], &none.json["stdout_bytes"]),
        (&json!("\n[… 3 bytes omitted …]\n"), &json!(3))
    );
}

#[tokio::test]
async fn the_same_request_with_the_same_id_runs_once() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let counter = daemon.sockets().join("counter");
    let script = format!("echo x >> {}; echo out; exit 7", counter.display());
    let request = sh(&script, json!({ "id": "job-1", "stdin": "unread" }));
    let mut both = JoinSet::new();
    for _ in 0..2 {
        let post = daemon.http.post(daemon.url(EXEC)).json(&request).send();
        both.spawn(async move { read(post.await.unwrap()).await });
    }
    let mut ran = 0;
    while let Some(reply) = both.join_next().await {
        let reply = reply.unwrap();
        // The second request may have taken the program over from the first one.
        if reply.status != 409 {
            assert_eq!((reply.status, &reply.json["exit_code"]), (200, &json!(7)), "{reply:?}");
            assert_eq!(
                (&reply.json["stdout"], &reply.json["id"]),
                (&json!("out\n"), &json!("job-1"))
            );
            ran += 1;
        }
    }
    assert!(ran >= 1);
    let again = daemon.post(EXEC, request).await;
    assert_eq!((again.status, &again.json["stdout"]), (200, &json!("out\n")));
    assert_eq!(fs::read_to_string(&counter).unwrap(), "x\n");
    let other = daemon.post(EXEC, sh("true", json!({ "id": "job-1" }))).await;
    other.assert_problem(409, "exec_conflict").assert_field("id");
    assert_eq!(other.json["may_have_executed"], false);
}

/// Breaks the connections several times while a program writes.
async fn cut_while(vm: &FakeVmm, file: &std::path::Path) {
    for step in 1..=3 {
        let reached = || fs::read_to_string(file).is_ok_and(|text| text.lines().count() >= step);
        crate::programs::until("the program has written its marks", reached).await;
        vm.cut();
    }
}

#[tokio::test]
async fn a_broken_connection_loses_no_byte_and_causes_no_second_run() {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Buffered(agent().unwrap(), 10_000);
    let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
    daemon.until_state("web-1", "ready").await;
    let marks = daemon.sockets().join("marks");
    let script = format!(
        "for n in 1 2 3 4 5; do echo x >> {}; seq -w 1000001 1100000; done; cat",
        marks.display()
    );
    let input = "0123456789".repeat(100_000);
    let request = sh(&script, json!({ "stdin": input }));
    let before = vm.accepted();
    let (ran, ()) = tokio::join!(daemon.post(EXEC, request), cut_while(&vm, &marks));
    assert!(vm.accepted() >= before + 3, "the daemon re-attached each time");
    assert_eq!((ran.status, &ran.json["exit_code"]), (200, &json!(0)), "{}", ran.json["detail"]);
    let once = (1_000_001..=1_100_000).map(|n| format!("{n}\n")).collect::<String>();
    let expected = once.repeat(5) + &input;
    assert!(ran.json["stdout"].as_str().unwrap() == expected, "{}", ran.json["stdout_bytes"]);
    assert_eq!(fs::read_to_string(&marks).unwrap(), "x\n".repeat(5));
}

#[tokio::test]
async fn a_start_whose_reply_is_lost_is_repeated_but_runs_once() {
    for accept in ["application/json", "application/x-ndjson"] {
        let daemon = TestDaemon::start().await;
        let lost = Arc::new(AtomicBool::new(false));
        let behaviour = Behaviour::LosesFirstStart(agent().unwrap(), Arc::clone(&lost));
        let _vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
        daemon.until_state("web-1", "ready").await;
        let marks = daemon.sockets().join("marks");
        let body = sh(&format!("echo x >> {}; cat", marks.display()), json!({ "stdin": "in\n" }));
        let request = daemon.http.post(daemon.url(EXEC)).header("accept", accept).json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer = answer.text().await.unwrap();
        assert!(answer.contains(r#""in\n""#) && answer.contains(r#""exit_code":0"#), "{answer}");
        assert!(lost.load(Ordering::SeqCst), "no reply was lost");
        assert_eq!(fs::read_to_string(&marks).unwrap(), "x\n");
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_ends_the_program_unless_it_is_detached() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    for (name, more, dies) in [
        ("kill", json!({}), true),
        ("detach", json!({ "on_disconnect": "detach", "id": "stays" }), false),
    ] {
        let file = daemon.sockets().join(name);
        let script = format!("echo $$ > {}; exec sleep 600", file.display());
        let body = sh(&script, more).to_string();
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        let head = format!(
            "POST {EXEC} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            daemon.bearer(),
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let pid = pid_in(&file).await;
        drop(stream);
        if dies {
            gone(pid).await;
        } else {
            let left = |info: &testkit::daemon::Reply| info.json["attached"] == false;
            let info = daemon.until("/vms/web-1/execs/stays", left).await;
            assert_eq!(info.json["state"], "running");
            let request = daemon.http.delete(daemon.url("/vms/web-1/execs/stays"));
            assert_eq!(read(request.send().await.unwrap()).await.status, 200);
            gone(pid).await;
        }
    }
}

#[tokio::test]
async fn the_end_of_the_callers_deadline_ends_the_program() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let file = daemon.sockets().join("pid");
    let script = format!("echo $$ > {}; exec sleep 600", file.display());
    let late = daemon.post("/vms/web-1/exec?timeout_ms=700", sh(&script, json!({}))).await;
    late.assert_problem(504, "agent_timeout");
    assert_eq!(late.json["may_have_executed"], true);
    gone(pid_in(&file).await).await;
}

#[tokio::test]
async fn long_running_programs_do_not_delay_other_calls() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut slow = JoinSet::new();
    for _ in 0..8 {
        slow.spawn(daemon.http.post(daemon.url(EXEC)).json(&sh("sleep 600", json!({}))).send());
    }
    daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 8).await;
    for _ in 0..20 {
        assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
        assert_eq!(daemon.exec("web-1", "true", &[]).await.json["exit_code"], 0);
    }
    assert_eq!(daemon.get("/vms/web-1").await.json["pool"]["in_use"], 0);
    drop(slow);
    daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 0).await;
}

#[tokio::test]
async fn programs_beyond_the_limit_are_rejected_at_once() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut slow = JoinSet::new();
    for _ in 0..64 {
        slow.spawn(daemon.http.post(daemon.url(EXEC)).json(&sh("sleep 600", json!({}))).send());
    }
    daemon.until("/vms/web-1/execs", |all| all.json["execs"].as_array().unwrap().len() == 64).await;
    let refused = daemon.exec("web-1", "true", &[]).await;
    refused.assert_problem(503, "overloaded");
    assert_eq!(refused.json["may_have_executed"], false);
    assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
}
