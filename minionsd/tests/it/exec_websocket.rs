//! A program over a WebSocket.

use crate::programs::{Client, Closed, gone, pid_in, until};
use minions_proto::channel::{Channel, HostControl};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::daemon::{DEADLINE, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::time::timeout;

fn sh(script: &str) -> Value {
    json!({ "command": "sh", "args": ["-c", script] })
}

async fn open(daemon: &TestDaemon, request: Value) -> Client {
    let (client, attached) = Client::open(daemon, "web-1", request).await;
    assert_eq!((&attached["status"], &attached["created"]), (&json!("ok"), &json!(true)));
    assert!(
        attached["pid"].as_u64().unwrap() > 0 && attached["stdin_window"].as_u64().unwrap() > 0
    );
    client
}

#[tokio::test]
async fn the_configured_reattach_grace_is_that_of_the_program() {
    let grace = |daemon: TestDaemon| async move {
        let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent().unwrap()));
        daemon.until_state("web-1", "ready").await;
        let (_client, attached) = Client::open(&daemon, "web-1", sh("cat")).await;
        drop(vm);
        attached["reattach_grace_ms"].clone()
    };
    assert_eq!(grace(TestDaemon::start().await).await, json!(60_000));
    let configured = Some(Duration::from_secs(90));
    let daemon = TestDaemon::with(|config| config.reattach_grace = configured).await;
    assert_eq!(grace(daemon).await, json!(90_000));
}

fn normal() -> Closed {
    Closed(1000, String::new())
}

#[tokio::test]
async fn input_reaches_the_program_and_its_end_ends_the_program() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut client = open(&daemon, sh("cat; echo err >&2; exit 5")).await;
    client.stdin(b"hello\n").await;
    assert_eq!(client.until("hello\n").await, "hello\n");
    client.stdin(b"\xff\0bytes").await;
    client.stdin(b"").await;
    let (output, end, closed) = client.rest().await;
    assert_eq!(output, b"\xff\0bytes");
    assert_eq!((&end["type"], &end["outcome"]["code"]), (&json!("exit"), &json!(5)));
    assert_eq!(closed, normal());
}

#[tokio::test]
async fn a_terminal_has_a_size_and_can_be_resized() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut request = sh("stty -echo; trap 'stty size' WINCH; stty size; while :; do read x; done");
    request["tty"] = json!({ "rows": 24, "cols": 80 });
    let mut client = open(&daemon, request).await;
    client.until("24 80\r\n").await;
    client.control(HostControl::Resize { rows: 30, cols: 100 }).await;
    client.until("30 100\r\n").await;
    client.control(HostControl::Signal { signal: "KILL".parse().unwrap() }).await;
    let (_, end, closed) = client.rest().await;
    assert_eq!((&end["outcome"]["signal"], closed), (&json!(9), normal()));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_a_problem_and_a_close() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    for (first, code, close) in [
        (json!({ "command": "/nowhere" }).to_string(), "command_not_found", 1008),
        (json!({ "command": "a", "env": { "": "" } }).to_string(), "invalid_env", 1008),
        (json!({ "command": "a", "stdin": "x" }).to_string(), "invalid_request", 1008),
        (json!({ "command": "a", "detach": true }).to_string(), "invalid_request", 1008),
        (json!({ "command": "a", "more": 1 }).to_string(), "invalid_request", 1008),
        (json!({ "attach": "nope" }).to_string(), "exec_gone", 1008),
        (json!({ "attach": "-" }).to_string(), "invalid_exec_id", 1008),
        (json!({ "attach": "a", "more": 1 }).to_string(), "invalid_request", 1008),
        ("{".into(), "invalid_request", 1008),
        (
            json!({ "command": "true", "args": ["x".repeat(1_048_500)] }).to_string(),
            "argument_list_too_long",
            1008,
        ),
    ] {
        let mut client = Client::connect(&daemon, "web-1").await;
        client.text(&first).await;
        let problem = client.answer().await;
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(
            (&problem["vm"], problem["request_id"].as_str().unwrap().len()),
            (&json!("web-1"), 36)
        );
        assert_eq!(client.message().await, Err(Closed(close, code.into())));
    }
    let mut client = Client::connect(&daemon, "web-1").await;
    client.raw(b"\0hello".to_vec()).await;
    assert_eq!(client.answer().await["code"], "invalid_request");
    vm.switch_to(Behaviour::Refuses);
    daemon.until_state("web-1", "unreachable").await;
    let (mut client, problem) = Client::open(&daemon, "web-1", sh("true")).await;
    assert_eq!(problem["code"], "agent_unreachable");
    assert_eq!(client.message().await, Err(Closed(1011, "agent_unreachable".into())));
}

#[tokio::test]
async fn a_plain_request_or_another_origin_does_not_open_a_websocket() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let plain = daemon.get("/vms/web-1/exec").await;
    plain.assert_problem(400, "invalid_request").assert_field("Upgrade");
    let upgrade = |path: &str| {
        let request = daemon.http.get(daemon.url(path)).header("connection", "upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
        request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let foreign = upgrade("/vms/web-1/exec").header("origin", "http://evil.example");
    read(foreign.send().await.unwrap()).await.assert_problem(403, "forbidden");
    let gone = read(upgrade("/vms/web-2/exec").send().await.unwrap()).await;
    gone.assert_problem(404, "vm_not_found");
}

#[tokio::test]
async fn an_invalid_message_closes_the_websocket() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    for (bytes, close) in [
        (b"\x01hi".to_vec(), 1002),
        (b"\x09hi".to_vec(), 1002),
        (vec![], 1002),
        (vec![0; 1_048_577], 1009),
        (vec![0; 1_100_000], 1009),
    ] {
        let mut client = open(&daemon, sh("exec sleep 600")).await;
        client.raw(bytes).await;
        assert_eq!(client.rest().await.2.0, close);
    }
    let mut client = open(&daemon, sh("exec sleep 600")).await;
    client.text("hello").await;
    assert_eq!(client.rest().await.2.0, 1003);
}

#[tokio::test]
async fn a_close_ends_the_program_and_a_lost_client_may_re_attach() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let file = daemon.sockets().join("left");
    let script = format!("echo $$ > {}; exec sleep 600", file.display());
    let client = open(&daemon, sh(&script)).await;
    let pid = pid_in(&file).await;
    client.close().await;
    gone(pid).await;

    let file = daemon.sockets().join("vanished");
    let mut request = sh(&format!("echo $$ > {}; echo one; read x; echo two $x", file.display()));
    request["id"] = json!("shell");
    let mut client = open(&daemon, request).await;
    client.until("one\n").await;
    drop(client);
    let away = |info: &testkit::daemon::Reply| info.json["attached"] == false;
    let info = daemon.until("/vms/web-1/execs/shell", away).await;
    assert_eq!(info.json["state"], "running");
    let back = json!({ "attach": "shell", "stdout_offset": 4 });
    let (mut client, attached) = Client::open(&daemon, "web-1", back).await;
    assert_eq!((&attached["created"], &attached["stdout"]), (&json!(false), &json!(4)));
    client.stdin(b"three\n").await;
    let (output, end, closed) = client.rest().await;
    assert_eq!((&output[..], &end["outcome"]["code"]), (&b"two three\n"[..], &json!(0)));
    assert_eq!(closed, normal());
}

#[tokio::test]
async fn a_client_that_sends_leave_detaches_and_is_closed() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut request = sh("echo up; exec sleep 600");
    request["id"] = json!("stays");
    request["on_disconnect"] = json!("detach");
    let mut client = open(&daemon, request).await;
    client.until("up\n").await;
    client.control(HostControl::Leave).await;
    assert_eq!(client.rest().await.2, normal());
    let info = daemon.get("/vms/web-1/execs/stays").await;
    assert_eq!((&info.json["state"], &info.json["attached"]), (&json!("running"), &json!(false)));
    let request = daemon.http.delete(daemon.url("/vms/web-1/execs/stays"));
    assert_eq!(request.send().await.unwrap().status(), 200);
}

/// Sends more output than the agent keeps without an ack, to a client that does not implement acks.
#[tokio::test]
async fn a_client_that_never_acknowledges_gets_all_output_and_the_exit_code() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut client = open(&daemon, sh("head -c 3000000 /dev/zero; exit 3")).await;
    let (output, end, closed) =
        timeout(DEADLINE, client.rest()).await.expect("the program does not end");
    assert_eq!((output.len(), &end["exit_code"]), (3_000_000, &json!(3)));
    assert_eq!(closed, normal());
}

/// A client that sends acks may re-attach, so the daemon sends none on its behalf.
#[tokio::test]
async fn output_that_an_acknowledging_client_does_not_acknowledge_is_kept() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut request = sh("head -c 3000000 /dev/zero; sleep 600");
    request["id"] = json!("kept");
    let mut client = open(&daemon, request).await;
    client.control(HostControl::Ack { stdout: 0, stderr: 0 }).await;
    let full = |info: &testkit::daemon::Reply| info.json["stdout_bytes"] == 512 * 1024;
    let info = daemon.until("/vms/web-1/execs/kept", full).await;
    assert_eq!(info.json["stdout_kept_from"], 0, "{info:?}");
}

/// Leaves as `minionsctl exec VM -- yes | head -1` does.
#[tokio::test]
async fn a_client_that_leaves_with_unread_output_ends_its_program_at_once() {
    // Less than the agent's re-attach grace for a lost client.
    const AT_ONCE: Duration = Duration::from_secs(10);
    let (daemon, _vm) = TestDaemon::with_vm().await;
    for round in 0..20 {
        let id = format!("yes-{round}");
        let mut request = sh("exec yes");
        request["id"] = json!(id);
        let mut client = open(&daemon, request).await;
        client.until("y\n").await;
        client.control(HostControl::Leave).await;
        drop(client);
        let path = format!("/vms/web-1/execs/{id}");
        let ended = daemon.until(&path, |info| info.json["state"] != "running");
        let ended = timeout(AT_ONCE, ended).await;
        assert!(ended.is_ok(), "round {round}: the agent never read `leave`");
    }
}

#[tokio::test]
async fn the_newest_client_takes_the_program_over() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let mut request = sh("echo up; read x; echo $x");
    request["id"] = json!("one");
    let mut first = open(&daemon, request).await;
    first.until("up\n").await;
    let (mut second, _) = Client::open(&daemon, "web-1", json!({ "attach": "one" })).await;
    let (_, end, closed) = first.rest().await;
    assert_eq!((&end["type"], &end["code"]), (&json!("error"), &json!("taken_over")));
    assert_eq!(closed, Closed(1008, "taken_over".into()));
    second.stdin(b"mine\n").await;
    let (output, end, _) = second.rest().await;
    assert_eq!((&output[..], &end["type"]), (&b"up\nmine\n"[..], &json!("exit")));
}

#[tokio::test]
async fn a_lost_agent_connection_is_reported_and_the_client_can_re_attach() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    let mut request = sh("echo one; read x; echo $x");
    request["id"] = json!("broken");
    let mut client = open(&daemon, request).await;
    client.until("one\n").await;
    vm.cut();
    assert_eq!(client.rest().await.2, Closed(1011, "connection_lost".into()));
    let back = json!({ "attach": "broken", "stdout_offset": 4, "stderr_offset": 0 });
    let (mut client, attached) = Client::open(&daemon, "web-1", back).await;
    assert_eq!(attached["status"], "ok", "{attached}");
    client.stdin(b"two\n").await;
    let (output, _, closed) = client.rest().await;
    assert_eq!((&output[..], closed), (&b"two\n"[..], normal()));
}

#[tokio::test]
async fn input_is_delivered_while_the_output_is_not_read() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let marker = daemon.sockets().join("marker");
    let script = format!("yes & cat > {}; exec sleep 600", marker.display());
    let mut client = open(&daemon, sh(&script)).await;
    let message = client.message().await.unwrap();
    assert_eq!(message.channel, Channel::Stdout);
    // The client reads no more; its output stream fills up.
    client.stdin(&[b'x'; 100_000]).await;
    let arrived = || std::fs::metadata(&marker).is_ok_and(|file| file.len() == 100_000);
    until("the input arrived", arrived).await;
}

#[tokio::test]
async fn a_daemon_that_stops_closes_with_1012_and_does_not_kill_programs() {
    let mut daemon = TestDaemon::start().await;
    let _vm =
        FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent().unwrap())).unwrap();
    daemon.until_state("web-1", "ready").await;
    let file = daemon.sockets().join("pid");
    let script = format!("echo $$ > {}; exec sleep 600", file.display());
    let mut client = open(&daemon, sh(&script)).await;
    let pid = pid_in(&file).await;
    // A client that has sent no request yet is closed, too.
    let mut idle = Client::connect(&daemon, "web-1").await;
    daemon.ask_to_stop();
    assert_eq!(client.rest().await.2, Closed(1012, "shutting_down".into()));
    assert_eq!(idle.rest().await.2, Closed(1012, "shutting_down".into()));
    timeout(DEADLINE, daemon.stopped()).await.unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_delay_the_end_of_the_daemon() {
    let (mut daemon, _vm) = TestDaemon::with_vm().await;
    let client = open(&daemon, sh("yes")).await;
    let stuck =
        || async { daemon.get("/vms/web-1/execs").await.json["execs"][0]["stdout_bytes"].as_u64() };
    let (mut last, mut same) = (None, 0);
    while same < 30 {
        let now = stuck().await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    daemon.ask_to_stop();
    timeout(DEADLINE, daemon.stopped()).await.unwrap();
    drop(client);
}
