//! A thousand requests that must fail: each has its own error code, and none leaves anything in the daemon or in the
//! agent.

use super::restarts::vm;
use crate::shared::process;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use testkit::daemon::{DEADLINE, read};
use testkit::wait::until;

fn requests(dir: &Path) -> Vec<(&'static str, String, Value, u16, &'static str)> {
    let file = dir.join("plain");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let exec =
        |body: Value, status, code| ("POST", "/vms/web-1/exec".to_owned(), body, status, code);
    let at = |method, path: &str, body, status, code| {
        (method, format!("/vms/web-1/execs{path}"), body, status, code)
    };
    let term = json!({ "signal": "TERM" });
    vec![
        exec(json!({ "command": "true", "user": "no-such-user" }), 422, "user_not_found"),
        exec(json!({ "command": "true", "cwd": "/nowhere" }), 422, "cwd_not_found"),
        exec(json!({ "command": "true", "env": { "A=B": "" } }), 422, "invalid_env"),
        exec(json!({ "command": "true", "env": { "A": "\0" } }), 422, "invalid_env"),
        exec(
            json!({ "command": "true", "args": ["x".repeat(3_000_000)] }),
            422,
            "argument_list_too_long",
        ),
        exec(
            json!({ "command": "true", "args": ["x".repeat(200_000)] }),
            422,
            "argument_list_too_long",
        ),
        exec(json!({ "command": file }), 422, "command_not_executable"),
        exec(json!({ "command": "no-such-program" }), 422, "command_not_found"),
        exec(json!({ "command": "true", "id": "a/b" }), 422, "invalid_exec_id"),
        exec(json!({ "command": "false", "id": "held" }), 409, "exec_conflict"),
        at("POST", "/held/signal", json!({ "signal": "NOPE" }), 422, "invalid_signal"),
        at("POST", "/gone/signal", term, 410, "exec_gone"),
        at("GET", "/gone/output", Value::Null, 410, "exec_gone"),
        at("GET", "/gone", Value::Null, 410, "exec_gone"),
        at("DELETE", "/gone", Value::Null, 410, "exec_gone"),
        at("GET", "/%20odd", Value::Null, 422, "invalid_exec_id"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_failing_requests_leave_nothing_behind() {
    let (dir, _vm) = vm();
    let daemon = process::start(dir.path());
    let socket = dir.path().join("minionsd.sock");
    let http = testkit::daemon::http().unix_socket(socket).timeout(DEADLINE).build().unwrap();
    let ask = async |method: &str, path: &str, body: &Value| {
        let mut request = http.request(method.parse().unwrap(), format!("http://localhost{path}"));
        if !body.is_null() {
            request = request.json(body);
        }
        read(request.send().await.unwrap()).await
    };
    let held = json!({ "command": "sleep", "args": ["300.5050"], "id": "held", "detach": true });
    assert_eq!(ask("POST", "/vms/web-1/exec", &held).await.status, 202);

    let requests = requests(dir.path());
    let mut before = 0;
    for round in 0..64 {
        for (method, path, body, status, code) in &requests {
            let reply = ask(method, path, body).await;
            let answer = (reply.status, reply.json["code"].as_str());
            assert_eq!(answer, (*status, Some(*code)), "{method} {path}: {}", reply.json);
        }
        if round == 1 {
            before = daemon.descriptors().unwrap();
        }
    }
    until("the descriptors are closed", || {
        let now = daemon.descriptors().unwrap();
        if now <= before { Ok(()) } else { Err((before, now)) }
    });
    let execs = ask("GET", "/vms/web-1/execs", &Value::Null).await.json;
    assert_eq!(execs["execs"].as_array().unwrap().len(), 1, "{execs}");
    let pool = ask("GET", "/vms/web-1", &Value::Null).await.json["pool"].clone();
    assert_eq!((&pool["streams"], &pool["in_use"]), (&json!(0), &json!(0)), "{pool}");
    assert_eq!(ask("DELETE", "/vms/web-1/execs/held", &Value::Null).await.status, 200);
    // The agent runs in this process, as do the agents of other tests, but only this test uses this argument.
    let arguments =
        |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let left = fs::read_dir("/proc").unwrap().flatten().map(arguments);
    let left: Vec<_> = left.filter(|line| line == &b"sleep\x00300.5050\x00"[..]).collect();
    assert!(left.is_empty(), "{left:?}");
}
