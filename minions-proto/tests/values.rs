//! Every request by its name, fields that are checked, and the values that results are converted to.
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

use minions_proto::channel::{Channel, ChannelMessage};
use minions_proto::forward_client::ForwardClient;
use minions_proto::message::{
    AgentInfo, Exec, ExecId, ExecStart, ForwardTarget, MAX_KILL_GRACE_MS, MAX_TIMEOUT_MS, Outcome,
    Request, StartFailure,
};
use minions_proto::names::check_domain;
use serde_json::{Value, json};
use std::time::Instant;

/// All requests, in the shortest form.
fn requests() -> [Value; 20] {
    [
        json!({ "type": "health_check" }),
        json!({ "type": "configure_network", "ip": "10.0.0.2/24", "gateway": "10.0.0.1", "dns": [] }),
        json!({ "type": "network_confirm", "id": "c1" }),
        json!({ "type": "read_network" }),
        json!({ "type": "exec", "command": "true" }),
        json!({ "type": "report_status" }),
        json!({ "type": "write_file", "path": "/x", "content": "eA==" }),
        json!({ "type": "exec_start", "command": "true" }),
        json!({ "type": "exec_attach", "id": "e1" }),
        json!({ "type": "exec_list" }),
        json!({ "type": "exec_inspect", "id": "e1" }),
        json!({ "type": "exec_signal", "id": "e1", "signal": "TERM" }),
        json!({ "type": "exec_remove", "id": "e1" }),
        json!({ "type": "set_clock", "time_unix_ms": 1_700_000_000_000_u64 }),
        json!({ "type": "power", "action": "reboot" }),
        json!({ "type": "file_start", "op": { "op": "stat", "path": "/" } }),
        json!({ "type": "forward_open", "target": "tcp:localhost:80" }),
        json!({ "type": "forward_listen", "address": "tcp:127.0.0.1:0" }),
        json!({ "type": "forward_accept", "listener": "l1", "connection": 1 }),
        json!({ "type": "configure_network", "interfaces": [{ "name": "eth0" }] }),
    ]
}

#[test]
fn every_request_is_decoded_by_its_name_and_has_it() {
    for request in requests() {
        let decoded = Request::decode(request.to_string().as_bytes());
        let decoded = decoded.unwrap_or_else(|error| panic!("{request}: {error}"));
        assert_eq!(decoded.type_name(), request["type"], "{request}");
    }
}

fn exec(more: Value) -> Exec {
    let mut request = json!({ "command": "true" });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(request).unwrap()
}

fn start(more: Value) -> ExecStart {
    let mut request = json!({ "command": "true" });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(request).unwrap()
}

#[test]
fn a_base_exec_names_its_invalid_field() {
    assert!(exec(json!({ "timeout_ms": 1 })).validate().is_ok());
    for (more, field) in [
        (json!({ "command": "" }), "command"),
        (json!({ "command": "a\0b" }), "command"),
        (json!({ "args": ["a", "\0"] }), "args[1]"),
        (json!({ "timeout_ms": 0 }), "timeout_ms"),
    ] {
        assert_eq!(exec(more).validate().unwrap_err().field, field);
    }
}

#[test]
fn an_exec_start_names_its_invalid_field_and_its_limits() {
    for more in [
        json!({ "cwd": "/tmp", "tty": { "rows": 1, "cols": 1, "term": "vt100" } }),
        json!({ "timeout_ms": MAX_TIMEOUT_MS, "kill_grace_ms": MAX_KILL_GRACE_MS }),
        json!({ "timeout_ms": 24 * 3600 * 1000, "kill_grace_ms": 60_000 }),
    ] {
        start(more).validate().unwrap();
    }
    for (more, field) in [
        (json!({ "cwd": "tmp" }), "cwd"),
        (json!({ "cwd": "/a\0b" }), "cwd"),
        (json!({ "tty": { "rows": 1, "cols": 1, "term": "\0" } }), "tty.term"),
        (json!({ "timeout_ms": 24 * 3600 * 1000 + 1 }), "timeout_ms"),
        (json!({ "kill_grace_ms": 60_001 }), "kill_grace_ms"),
    ] {
        assert_eq!(start(more).validate().unwrap_err().field, field);
    }
    assert_eq!(start(json!({})).limit(), None);
    assert_eq!(start(json!({ "memory_bytes": 1 })).limit(), Some("memory_bytes"));
    assert_eq!(start(json!({ "pids": 1 })).limit(), Some("pids"));
}

#[test]
fn results_are_the_exit_codes_of_a_shell() {
    let failed = |kind| Outcome::FailedToStart { kind, errno: None };
    for (outcome, code) in [
        (json!({ "type": "exited", "code": 7 }), 7),
        (json!({ "type": "signaled", "signal": 9, "core": false }), 137),
        (json!({ "type": "timed_out" }), 124),
    ] {
        let outcome: Outcome = serde_json::from_value(outcome).unwrap();
        assert_eq!(outcome.exit_code(), code, "{outcome:?}");
    }
    assert_eq!(failed(StartFailure::NotFound).exit_code(), 127);
    assert_eq!(failed(StartFailure::NotExecutable).exit_code(), 126);
    assert_eq!(failed(StartFailure::Cwd).exit_code(), 125);
}

#[test]
fn an_id_is_shown_as_it_was_given() {
    let id: ExecId = "job-1.a_b".parse().unwrap();
    assert_eq!((id.to_string().as_str(), id.as_str()), ("job-1.a_b", "job-1.a_b"));
}

#[test]
fn lengths_are_permitted_up_to_their_limits() {
    let label = "a".repeat(63);
    // The longest domain has 253 bytes.
    let longest = [&label[..], &label, &label, &"a".repeat(61)].join(".");
    assert_eq!(longest.len(), 253);
    assert_eq!(check_domain("search", &longest).unwrap(), longest);
    assert!(check_domain("search", &format!("{longest}a")).is_err());
    let path = format!("unix:/{}", "x".repeat(106));
    assert!(path.parse::<ForwardTarget>().is_ok());
    let too_long = format!("{path}x").parse::<ForwardTarget>().unwrap_err().to_string();
    assert!(too_long.contains("108 bytes: must have at most 107"), "{too_long}");
}

#[test]
fn an_agent_is_restricted_only_if_it_says_so() {
    let mut agent = json!({
        "name": "n", "version": "v", "protocol": 2, "boot_id": "b", "instance_id": "i",
        "features": ["exec2", "later"]
    });
    let free: AgentInfo = serde_json::from_value(agent.clone()).unwrap();
    assert!(free.allows("exec") && free.allows("files"));
    assert_eq!(free.features.names().collect::<Vec<_>>(), ["exec2", "later"]);
    agent["allowed"] = json!(["health"]);
    let restricted: AgentInfo = serde_json::from_value(agent).unwrap();
    assert!(restricted.allows("health") && !restricted.allows("exec"));
}

#[test]
fn the_end_of_a_target_is_remembered() {
    let mut client = ForwardClient::new(Instant::now());
    let end = |channel| ChannelMessage { channel, payload: bytes::Bytes::new() };
    assert!(!client.target_has_ended());
    client.receive(end(Channel::Stdout), Instant::now()).unwrap();
    assert!(client.target_has_ended());
}
