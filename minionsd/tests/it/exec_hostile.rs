//! Agents that lie, flood, or fall silent while a program runs.

use crate::programs::{Client, Closed, Lines};
use bytes::{Bytes, BytesMut};
use minions_proto::channel::{AgentControl, Channel, ChannelMessage, OutputStream};
use serde_json::json;
use testkit::daemon::{TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm};
use testkit::wire::framed;

const EXEC: &str = "/vms/web-1/exec";

fn reply(offset: u64) -> Vec<u8> {
    reply_with(&["exec2"], offset)
}

/// Returns a reply that is valid for every request: health with these features, a program started at these offsets,
/// and the state of an exec.
pub(crate) fn reply_with(features: &[&str], offset: u64) -> Vec<u8> {
    framed(json!({
        "status": "ok", "uptime_secs": 1, "hostname": "h",
        "agent": {
            "name": "n", "version": "v", "protocol": 2, "boot_id": "b", "instance_id": "i",
            "features": features
        },
        "id": "theirs", "created": true, "pid": 1, "stdout": offset, "stderr": offset,
        "stdin": offset, "stdin_acked": offset, "stdin_window": offset, "stdin_closed": false,
        "command": "true", "tty": false, "age_ms": 1, "attached": false, "on_disconnect": "detach",
        "stdout_bytes": 9, "stdout_kept_from": 0, "stderr_bytes": 9, "stderr_kept_from": 0,
        "stdin_bytes": 0
    }))
}

fn bytes(message: &ChannelMessage) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    out.to_vec()
}

pub(crate) fn output(len: usize) -> Vec<u8> {
    bytes(&ChannelMessage { channel: Channel::Stdout, payload: Bytes::from(vec![b'x'; len]) })
}

pub(crate) async fn with(reply: Vec<u8>, then: Vec<u8>) -> (TestDaemon, FakeVmm) {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Streams(reply, then);
    let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
    daemon.until_state("web-1", "ready").await;
    (daemon, vm)
}

#[tokio::test]
async fn an_invalid_stream_is_a_protocol_error_in_every_form() {
    let gap = |from, to| {
        bytes(&ChannelMessage::agent(&AgentControl::Gap { stream: OutputStream::Stdout, from, to }))
    };
    for then in [
        vec![0, 0, 0, 2, 9, 9],
        vec![0, 0, 0, 0],
        vec![0xff; 8],
        bytes(&ChannelMessage { channel: Channel::Stdin, payload: Bytes::from_static(b"x") }),
        bytes(&ChannelMessage { channel: Channel::Control, payload: Bytes::from_static(b"[") }),
        bytes(&ChannelMessage::agent(&AgentControl::Ack { stdin: 7 })),
        gap(5, 6),
        gap(0, u64::MAX),
    ] {
        let (daemon, _vm) = with(reply(0), then.clone()).await;
        let request = json!({ "command": "true" });
        let collected = daemon.post(EXEC, request.clone()).await;
        collected.assert_problem(502, "agent_protocol_error");
        assert_eq!(collected.json["may_have_executed"], true, "{then:?}");
        let events = Lines::post(&daemon, EXEC, request).await.rest().await;
        let last = events.last().unwrap();
        assert_eq!(last["problem"]["code"], "agent_protocol_error", "{then:?}");
        assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
    }
    let (daemon, _vm) = with(reply(0), vec![0, 0, 0, 2, 9, 9]).await;
    let (mut client, _) = Client::open(&daemon, "web-1", json!({ "command": "true" })).await;
    assert_eq!(client.message().await, Err(Closed(1011, "agent_protocol_error".into())));
}

#[tokio::test]
async fn impossible_offsets_are_a_protocol_error_in_every_form() {
    for offset in [1 << 53, 1 << 62, u64::MAX - 3, u64::MAX] {
        let (daemon, _vm) = with(reply(offset), output(1000)).await;
        let request = json!({ "command": "true", "stdin": "abc" });
        daemon.post(EXEC, request.clone()).await.assert_problem(502, "agent_protocol_error");
        let streamed = daemon.http.post(daemon.url(EXEC)).json(&request);
        let streamed = streamed.header("accept", "application/x-ndjson").send().await.unwrap();
        read(streamed).await.assert_problem(502, "agent_protocol_error");
        let request = json!({ "command": "true" });
        let (_, answer) = Client::open(&daemon, "web-1", request).await;
        assert_eq!(answer["code"], "agent_protocol_error", "{answer}");
        let output = daemon.get("/vms/web-1/execs/theirs/output").await;
        assert_eq!(output.json["code"], "agent_protocol_error", "{output:?}");
    }
}

#[tokio::test]
async fn output_from_before_the_requested_offset_is_a_protocol_error() {
    let (daemon, _vm) = with(reply(5), output(1000)).await;
    let output = daemon.get("/vms/web-1/execs/theirs/output?stdout_offset=6").await;
    output.assert_problem(502, "agent_protocol_error");
}

/// Covers gaps of any size: no offset is smaller than the previous one, and no impossible offset is passed on.
#[tokio::test]
async fn offsets_of_a_stream_never_decrease() {
    let gap = |from, to| {
        bytes(&ChannelMessage::agent(&AgentControl::Gap { stream: OutputStream::Stdout, from, to }))
    };
    let max = (1 << 53) - 1;
    let then = [output(3), gap(3, max), output(3), gap(max + 3, 1 << 61)].concat();
    let (daemon, _vm) = with(reply(0), then).await;
    let events = Lines::post(&daemon, EXEC, json!({ "command": "true" })).await.rest().await;
    let received: Vec<_> = events
        .iter()
        .map(|event| match event["type"].as_str().unwrap() {
            "stdout" => ("stdout", event["offset"].as_u64().unwrap()),
            "gap" => ("gap", event["to"].as_u64().unwrap()),
            other => (if other == "started" { "started" } else { "error" }, 0),
        })
        .collect();
    let expected = [("started", 0), ("stdout", 0), ("gap", max), ("stdout", max), ("error", 0)];
    assert_eq!(received, expected, "{events:?}");
    assert_eq!(events.last().unwrap()["problem"]["code"], "agent_protocol_error");
    let (mut client, _) = Client::open(&daemon, "web-1", json!({ "command": "true" })).await;
    let (written, _, closed) = client.rest().await;
    assert_eq!((&*written, closed), (&b"xxxxxx"[..], Closed(1011, "agent_protocol_error".into())));
}

#[tokio::test]
async fn endless_output_is_read_until_the_callers_deadline() {
    let (daemon, _vm) = with(reply(0), output(60_000)).await;
    let request = json!({ "command": "true", "max_output_bytes": 1_000_000 });
    let late = daemon.post(&format!("{EXEC}?timeout_ms=500"), request).await;
    late.assert_problem(504, "agent_timeout");
    assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
    let path = format!("{EXEC}?timeout_ms=500");
    let mut lines = Lines::post(&daemon, &path, json!({ "command": "true" })).await;
    let mut last = json!(null);
    while let Some(event) = lines.next().await {
        last = event;
    }
    assert_eq!(last["problem"]["code"], "agent_timeout");
    daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 0).await;
}

/// Returns floods of messages without content, many in one write.
fn empty_messages() -> Vec<Vec<u8>> {
    let control = |json: &'static [u8]| {
        bytes(&ChannelMessage { channel: Channel::Control, payload: Bytes::from_static(json) })
    };
    [
        control(br#"{"type":"heartbeat"}"#),
        control(br#"{"type":"teleport","to":[1,2,3]}"#),
        control(br#"{"type":"ack","stdin":0}"#),
        control(br#"{"type":"gap","stream":"stdout","from":0,"to":0}"#),
        output(0),
    ]
    .map(|message| message.repeat(500))
    .into()
}

#[tokio::test]
async fn a_flood_of_empty_messages_is_a_protocol_error_in_every_form() {
    for flood in empty_messages() {
        let (daemon, _vm) = with(reply(0), flood).await;
        let request = json!({ "command": "true" });
        let collected = daemon.post(EXEC, request.clone()).await;
        collected.assert_problem(502, "agent_protocol_error");
        let mut lines = Lines::post(&daemon, EXEC, request.clone()).await;
        let (mut heartbeats, mut last) = (0, json!(null));
        while let Some(event) = lines.next().await {
            heartbeats += u32::from(event["type"] == "heartbeat");
            last = event;
        }
        assert_eq!(last["problem"]["code"], "agent_protocol_error");
        assert!(heartbeats <= 1, "{heartbeats} heartbeats passed to the caller");
        let (mut client, _) = Client::open(&daemon, "web-1", request).await;
        let closed = loop {
            match client.message().await {
                Ok(_) => {}
                Err(closed) => break closed,
            }
        };
        assert_eq!(closed, Closed(1011, "agent_protocol_error".into()));
        assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
        daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 0).await;
    }
}

#[tokio::test]
async fn output_of_single_bytes_is_never_a_protocol_error() {
    let messages = 20_000;
    let end = bytes(&ChannelMessage::agent(&AgentControl::Exit(minions_proto::channel::Ended {
        outcome: minions_proto::message::Outcome::Exited { code: 0 },
        usage: minions_proto::message::Usage::default(),
    })));
    let (daemon, _vm) = with(reply(0), [output(1).repeat(messages), end].concat()).await;
    let request = json!({ "command": "true" });
    let ran = daemon.post(EXEC, request.clone()).await;
    assert_eq!((ran.status, &ran.json["stdout_bytes"]), (200, &json!(messages)), "{ran:?}");
    let events = Lines::post(&daemon, EXEC, request.clone()).await.rest().await;
    assert_eq!(crate::programs::bytes_of(&events, "stdout", 0), vec![b'x'; messages]);
    assert_eq!(events.last().unwrap()["type"], "exit");
    let (mut client, _) = Client::open(&daemon, "web-1", request).await;
    let (written, end, closed) = client.rest().await;
    assert_eq!((written, &end["type"]), (vec![b'x'; messages], &json!("exit")));
    assert_eq!(closed.0, 1000);
}
