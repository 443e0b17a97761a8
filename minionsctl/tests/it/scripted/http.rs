//! Plain HTTP answers of a scripted minionsd: event streams, NDJSON and JSON.

use super::peer::Listener;
use super::{end, start_command};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const NDJSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n";

/// Bytes after which a client that still reads has no bound: many times its limit of 1 MiB.
const FLOOD: usize = 64 * 1024 * 1024;

fn event(vm: &str) -> String {
    let incarnation = json!({ "device": 1, "inode": 2 });
    json!({ "type": "vm.found", "at": "2026-01-01T00:00:00.000Z", "vm": vm, "incarnation": incarnation })
        .to_string()
}

#[tokio::test]
async fn the_data_lines_of_an_event_are_joined() {
    let daemon = Listener::bind().await;
    let mut child = start_command(&daemon, &["-o", "json", "watch"]);
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
    let event = event("web-1");
    let (first, second) = event.split_once(',').unwrap();
    let lines = format!(": comment\r\nid: 1\r\nevent: vm.found\ndata: {first},\ndata:{second}\n\n");
    let (left, right) = lines.split_at(lines.len() / 2);
    daemon.answer(&[EVENTS, left, right]).await;
    let printed: Value =
        serde_json::from_str(&printed.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(printed, serde_json::from_str::<Value>(&event).unwrap());
}

#[tokio::test]
async fn an_event_that_breaks_off_is_requested_again() {
    let daemon = Listener::bind().await;
    let mut child = start_command(&daemon, &["watch"]);
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
    let complete = format!("id: 1\ndata: {}\n\n", event("first"));
    let head = daemon.answer(&[EVENTS, &complete, "id: 2\nevent: vm.found\n"]).await;
    assert!(!head.contains("last-event-id"), "{head}");
    let again = format!("id: 2\ndata: {}\n\n", event("second"));
    let head = daemon.answer(&[EVENTS, &again]).await;
    assert!(head.contains("last-event-id: 1\r\n"), "{head}");
    for vm in ["first", "second"] {
        let line = printed.next_line().await.unwrap().unwrap();
        assert!(line.contains(vm), "{line}");
    }
}

#[tokio::test]
async fn a_line_or_an_event_without_end_is_refused() {
    let line = format!("data: {}\n", "x".repeat(1000));
    for (endless, named) in [("x".repeat(1000), "a line"), (line, "an event")] {
        let daemon = Listener::bind().await;
        let child = start_command(&daemon, &["watch"]);
        let sent = daemon.flood(EVENTS, &endless, FLOOD).await;
        assert!(sent < FLOOD, "{named}: the client took {sent} bytes");
        let (code, stdout, stderr) = end(child).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(&format!("{named} is longer than 1 MiB")), "{stderr}");
    }
}

#[tokio::test]
async fn a_problem_without_end_is_refused() {
    let daemon = Listener::bind().await;
    let child = start_command(&daemon, &["ls"]);
    let head = "HTTP/1.1 500 Error\r\ncontent-type: application/problem+json\r\n\r\n";
    let sent = daemon.flood(head, &"x".repeat(1000), FLOOD).await;
    assert!(sent < FLOOD, "the client took {sent} bytes");
    let (code, _, stderr) = end(child).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("the answer is longer than 1 MiB"), "{stderr}");
}

#[tokio::test]
async fn ndjson_is_read_line_by_line_and_an_incomplete_last_line_is_a_failure() {
    let daemon = Listener::bind().await;
    let child = start_command(&daemon, &["logs", "web-1", "x"]);
    let lines = [
        r#"{"type":"stdout","offset":0,"data":"a"}"#,
        r#"{"type":"stdout","offset":1,"data":"b"}"#,
    ];
    let body = format!("{}\r\n{}\n{{\"type\":\"ex", lines[0], lines[1]);
    daemon.answer(&[NDJSON, &body[..20], &body[20..]]).await;
    let (code, stdout, stderr) = end(child).await;
    assert_eq!((code, stdout.as_str()), (1, "ab"), "{stderr}");
    assert!(stderr.contains("ended its answer early"), "{stderr}");
}

fn with_json(body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn the_command_that_confirms_a_network_change_names_the_vm() {
    let daemon = Listener::bind().await;
    let network = ["--ip", "10.0.0.2/16", "--gateway", "10.0.0.1", "--confirm-within", "30s"];
    let child = start_command(&daemon, &[&["configure-network", "web-1"], &network[..]].concat());
    let pending = json!({ "id": "abc", "expires_in_ms": 29_500 });
    let applied = json!({ "status": "ok", "message": "applied", "pending": pending });
    daemon.answer(&[&with_json(&applied)]).await;
    let (code, stdout, stderr) = end(child).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("minionsctl confirm-network web-1 abc"), "{stdout}");

    let child = start_command(&daemon, &["network", "web-1"]);
    let dns = json!({ "owner": "resolv_conf", "servers": [], "search": [] });
    let read = json!({ "status": "ok", "interfaces": [], "dns": dns, "pending": pending });
    daemon.answer(&[&with_json(&read)]).await;
    let (code, stdout, stderr) = end(child).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("abc, rolled back in 30 s unless confirmed"), "{stdout}");
}
