//! The stream of an exec against a scripted minionsd, for faults that a real one does not produce at the right
//! moment.

mod http;
pub(crate) mod peer;

use crate::shared::command::ctl;
use minions_proto::AgentError;
use minions_proto::ErrorCode;
use minions_proto::channel::{AgentControl, HostControl, OutputStream};
use peer::Listener;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// Starts `minionsctl exec` against the scripted daemon.
fn start(daemon: &Listener, args: &[&str]) -> Child {
    start_command(daemon, &[&["exec"], args].concat())
}

/// Starts `minionsctl` against the scripted daemon.
fn start_command(daemon: &Listener, args: &[&str]) -> Child {
    let mut command = Command::from(ctl(&daemon.host(), args));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

async fn end(child: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn problem(code: &str, status: u16, more: &Value) -> Value {
    let mut problem = json!({
        "type": format!("urn:minions:problem:{code}"), "title": "", "status": status,
        "detail": format!("this is {code}"), "code": code, "request_id": "r",
        "retryable": false, "may_have_executed": false,
    });
    problem.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    problem
}

#[tokio::test]
async fn a_lost_stream_is_re_attached_without_missing_or_duplicate_bytes() {
    let daemon = Listener::bind().await;
    let mut child = start(&daemon, &["-i", "web-1", "--", "cat"]);
    let input: Vec<u8> = (0..=255).collect();
    child.stdin.take().unwrap().write_all(&input).await.unwrap();

    let (mut peer, request) = daemon.peer().await;
    assert_eq!((&request["command"], &request["interactive"]), (&json!("cat"), &json!(true)));
    let id = &request["id"];
    peer.attached(&json!({ "id": id })).await;
    assert_eq!(peer.input(100).await, input[..100], "the client must not exceed the window");
    peer.control(&AgentControl::Ack { stdin: 40 }).await;
    assert_eq!(peer.input(40).await, input[100..140]);
    peer.stdout("abc").await;
    peer.control(&AgentControl::Heartbeat).await;
    assert_eq!(peer.hear_control().await, HostControl::Ack { stdout: 3, stderr: 0 });
    // 120 bytes of the input have arrived at the agent, and the program has read 90.
    drop(peer);

    let (mut peer, request) = daemon.peer().await;
    assert_eq!(request, json!({ "attach": id, "stdout_offset": 3, "stderr_offset": 0 }));
    let there = json!({ "id": id, "stdout": 3, "stdin": 120, "stdin_acked": 90 });
    peer.attached(&there).await;
    assert_eq!(peer.input(70).await, input[120..190]);
    peer.stdout("def").await;
    peer.close(1011, "connection_lost").await;

    let (mut peer, request) = daemon.peer().await;
    assert_eq!(request["stdout_offset"], 6);
    let there = json!({ "id": id, "stdout": 6, "stdin": 190, "stdin_acked": 190 });
    peer.attached(&there).await;
    assert_eq!(peer.input(usize::MAX).await, input[190..], "the rest of the input, then its end");
    peer.exit(3).await;
    assert_eq!(end(child).await, (3, "abcdef".into(), String::new()));
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_is_repeated_with_the_same_id() {
    let daemon = Listener::bind().await;
    let child = start(&daemon, &["web-1", "--", "true"]);
    let (peer, first) = daemon.peer().await;
    drop(peer);
    let (mut peer, second) = daemon.peer().await;
    assert!(first["id"].is_string() && first == second, "{first} {second}");
    let lost = json!({ "retryable": true, "may_have_executed": true });
    peer.text(&problem("connection_lost", 502, &lost)).await;
    let (mut peer, third) = daemon.peer().await;
    assert_eq!(first, third);
    peer.attached(&json!({ "id": first["id"], "created": false, "stdin_closed": true })).await;
    peer.stdout("once").await;
    peer.exit(0).await;
    assert_eq!(end(child).await, (0, "once".into(), String::new()));
}

#[tokio::test]
async fn an_agent_without_ids_gets_none_and_is_not_re_attached() {
    let daemon = Listener::bind().await;
    let child = start(&daemon, &["web-1", "--", "true"]);
    let (mut peer, request) = daemon.peer().await;
    assert!(request["id"].is_string());
    peer.text(&problem("agent_too_old", 501, &json!({ "field": "id" }))).await;
    let (mut peer, request) = daemon.peer().await;
    assert_eq!(request.get("id"), None);
    peer.attached(&json!({ "id": "", "pid": 0 })).await;
    peer.close(1011, "connection_lost").await;
    let (code, _, stderr) = end(child).await;
    assert_eq!(code, 125, "{stderr}");
    assert!(stderr.contains("to the program: minionsd closed the stream (1011: connection_lost)"));

    let child = start(&daemon, &["--id", "mine", "web-1", "--", "true"]);
    let (mut peer, request) = daemon.peer().await;
    assert_eq!(request["id"], "mine");
    peer.text(&problem("agent_too_old", 501, &json!({ "field": "id" }))).await;
    assert_eq!(end(child).await.0, 125, "an id given by the user is required");
}

#[tokio::test]
async fn a_refused_upgrade_is_reported_with_its_problem() {
    let daemon = Listener::bind().await;
    let child = start(&daemon, &["web-1", "--", "true"]);
    let body = problem("vm_not_found", 404, &json!({})).to_string();
    let head = format!(
        "HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    daemon.answer(&[&head, &body[..10], &body[10..]]).await;
    let (code, _, stderr) = end(child).await;
    assert_eq!((code, stderr.contains("this is vm_not_found")), (125, true), "{stderr}");
}

#[tokio::test]
async fn a_failed_start_is_not_repeated() {
    let daemon = Listener::bind().await;
    for (code, status, exit) in [
        ("command_not_found", 422, 127),
        ("command_not_executable", 422, 126),
        ("forbidden", 403, 125),
    ] {
        let child = start(&daemon, &["web-1", "--", "true"]);
        let (mut peer, _) = daemon.peer().await;
        peer.text(&problem(code, status, &json!({}))).await;
        peer.close(1008, "").await;
        assert_eq!(end(child).await.0, exit, "{code}");
    }
}

#[tokio::test]
async fn a_takeover_by_another_client_is_reported() {
    let daemon = Listener::bind().await;
    let child = start(&daemon, &["web-1", "--", "true"]);
    let (mut peer, _) = daemon.peer().await;
    peer.attached(&json!({})).await;
    let error = AgentError::new(ErrorCode::TakenOver, "another client attached");
    peer.control(&AgentControl::Error(error)).await;
    peer.close(1000, "").await;
    let (code, _, stderr) = end(child).await;
    assert_eq!(code, 125);
    assert!(stderr.contains("taken over by another client"), "{stderr}");
}

#[tokio::test]
async fn the_first_interrupt_goes_to_the_program_and_the_second_ends_the_client() {
    let daemon = Listener::bind().await;
    let child = start(&daemon, &["web-1", "--", "sleep", "100"]);
    let (mut peer, request) = daemon.peer().await;
    assert_eq!(request["interactive"], false);
    peer.attached(&json!({ "stdin_closed": true })).await;
    // A client that has sent an ack has set up its signal handlers.
    peer.stdout("x").await;
    peer.control(&AgentControl::Heartbeat).await;
    assert_eq!(peer.hear_control().await, HostControl::Ack { stdout: 1, stderr: 0 });
    signal(&child, Signal::INT);
    let int = HostControl::Signal { signal: "INT".parse().unwrap() };
    assert_eq!(peer.hear_control().await, int);
    signal(&child, Signal::INT);
    assert_eq!(peer.hear_control().await, HostControl::Leave);
    assert_eq!(peer.hear().await, None, "the client must send a Close frame");
    assert_eq!(end(child).await, (130, "x".into(), String::new()));
}

#[tokio::test]
async fn a_client_ended_by_a_signal_sends_leave_and_close() {
    let daemon = Listener::bind().await;
    for (number, detach) in [(Signal::TERM, true), (Signal::HUP, false), (Signal::QUIT, false)] {
        let mut args = vec!["-i", "web-1", "--", "cat"];
        if detach {
            args.splice(0..0, ["--on-disconnect", "detach"]);
        }
        let mut child = start(&daemon, &args);
        let mut stdin = child.stdin.take().unwrap();
        let (mut peer, _) = daemon.peer().await;
        peer.attached(&json!({})).await;
        stdin.write_all(b"!").await.unwrap();
        assert_eq!(peer.input(1).await, b"!");
        signal(&child, number);
        assert_eq!(peer.hear_control().await, HostControl::Leave);
        assert_eq!(peer.hear().await, None);
        drop(peer);
        let (code, _, stderr) = end(child).await;
        assert_eq!(code, 128 + number.as_raw(), "{stderr}");
        assert_eq!(
            stderr.contains("re-attach with `minionsctl attach web-1 x`"),
            detach,
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn the_end_of_the_program_does_not_wait_for_the_end_of_the_input() {
    let daemon = Listener::bind().await;
    let mut child = start(&daemon, &["-i", "web-1", "--", "true"]);
    let stdin = child.stdin.take();
    let (mut peer, _) = daemon.peer().await;
    peer.attached(&json!({})).await;
    peer.exit(0).await;
    assert_eq!(end(child).await, (0, String::new(), String::new()));
    drop(stdin);
}

#[tokio::test]
async fn output_without_a_reader_is_not_acknowledged_and_blocks_nothing_else() {
    let daemon = Listener::bind().await;
    let mut child = start(&daemon, &["-i", "web-1", "--", "cat"]);
    let mut stdout = child.stdout.take().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (mut peer, _) = daemon.peer().await;
    peer.attached(&json!({})).await;
    // More than a pipe holds, and less than the socket and the queue hold.
    let chunk: &'static str = "x".repeat(32 * 1024).leak();
    for _ in 0..8 {
        peer.stdout(chunk).await;
    }
    stdin.write_all(b"still here").await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 10 {
        let message = peer.hear().await.unwrap();
        assert!(message.host_control().is_err(), "{:?}", message.host_control());
        heard.extend_from_slice(&message.payload);
    }
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).await.unwrap();
        all.len()
    });
    let ack = peer.hear_control().await;
    assert!(matches!(ack, HostControl::Ack { stdout, .. } if stdout >= 128 * 1024), "{ack:?}");
    peer.exit(0).await;
    assert_eq!(end(child).await.0, 0);
    assert_eq!(reader.await.unwrap(), 8 * chunk.len());
}

#[tokio::test]
async fn a_closed_standard_output_ends_the_client() {
    let daemon = Listener::bind().await;
    let mut child = start(&daemon, &["web-1", "--", "yes"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (mut peer, _) = daemon.peer().await;
    peer.attached(&json!({})).await;
    peer.stdout("y\n").await;
    peer.control(&AgentControl::Heartbeat).await;
    let mut line = String::new();
    stdout.read_line(&mut line).await.unwrap();
    drop(stdout);
    // A child that another test has just forked may hold the pipe open for a moment.
    while peer.hear_control().await != HostControl::Leave {
        peer.stdout("y\n").await;
        peer.control(&AgentControl::Heartbeat).await;
    }
    drop(peer);
    assert_eq!(end(child).await, (141, String::new(), String::new()));
}

#[tokio::test]
async fn a_stream_that_cannot_be_re_attached_is_a_failure() {
    let daemon = Listener::bind().await;
    let child = start(&daemon, &["web-1", "--", "true"]);
    let (mut peer, _) = daemon.peer().await;
    peer.attached(&json!({ "reattach_grace_ms": 2000 })).await;
    peer.stdout("half").await;
    peer.close(1012, "restart").await;
    drop((peer, daemon));
    let (code, stdout, stderr) = end(child).await;
    assert_eq!((code, stdout.as_str()), (125, "half"));
    assert!(stderr.contains("could not re-attach within 2s"), "{stderr}");
}

#[tokio::test]
async fn incomplete_output_is_not_a_success() {
    let daemon = Listener::bind().await;
    for (code, ours) in [(0, 125), (3, 3)] {
        let child = start(&daemon, &["web-1", "--", "true"]);
        let (mut peer, _) = daemon.peer().await;
        peer.attached(&json!({})).await;
        peer.stdout("a").await;
        let stream = OutputStream::Stdout;
        peer.control(&AgentControl::Gap { stream, from: 1, to: 9 }).await;
        peer.stdout("b").await;
        peer.exit(code).await;
        let (code, stdout, stderr) = end(child).await;
        assert_eq!((code, stdout.as_str()), (ours, "ab"));
        assert_eq!(stderr, "8 bytes of standard output are lost\n");
    }
}

#[tokio::test]
async fn a_program_that_is_gone_ends_the_attempts_to_re_attach() {
    let daemon = Listener::bind().await;
    let child = start(&daemon, &["web-1", "--", "true"]);
    let (mut peer, request) = daemon.peer().await;
    peer.attached(&json!({ "id": request["id"] })).await;
    drop(peer);
    let (mut peer, _) = daemon.peer().await;
    peer.text(&problem("exec_gone", 410, &json!({}))).await;
    let (code, _, stderr) = end(child).await;
    assert_eq!(code, 125);
    assert!(stderr.contains("cannot re-attach: this is exec_gone"), "{stderr}");
}

#[tokio::test]
async fn a_stream_with_a_wrong_offset_is_a_failure_at_once() {
    let daemon = Listener::bind().await;
    let child = start(&daemon, &["web-1", "--", "true"]);
    let (mut peer, request) = daemon.peer().await;
    peer.attached(&json!({ "id": request["id"] })).await;
    drop(peer);
    let (mut peer, _) = daemon.peer().await;
    peer.attached(&json!({ "id": request["id"], "stdout": 5 })).await;
    let (code, _, stderr) = end(child).await;
    assert_eq!(code, 125);
    assert!(stderr.contains("counts stdout differently"), "{stderr}");
}

#[tokio::test]
async fn a_stream_of_messages_that_carry_nothing_ends_with_an_error() {
    for control in [AgentControl::Heartbeat, AgentControl::Unknown] {
        let daemon = Listener::bind().await;
        let child = start(&daemon, &["web-1", "--", "true"]);
        let (mut peer, request) = daemon.peer().await;
        peer.attached(&json!({ "id": request["id"] })).await;
        peer.flood(&control).await;
        let (status, stdout, stderr) = end(child).await;
        assert_eq!((status, stdout.as_str()), (125, ""), "{stderr}");
        assert!(stderr.contains("10 messages a second that carry nothing"), "{stderr}");
    }
}
