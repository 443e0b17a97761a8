//! Connections byte by byte, listening sockets, and the command line.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::frame::{MAX_FRAME_LEN, PREFIX_LEN};
use minions_proto::handshake::HandshakeError;
use minions_proto::hybrid::{self, DialError};
use minions_proto::message::HealthCheck;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use support::{BINARY, RunningAgent, SOON, agent_command, listen_value, terminate, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

const HEALTH: &[u8] = br#"{"type":"health_check"}"#;

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

/// Returns the next reply, or `None` if the agent closed the connection instead.
async fn reply(stream: &mut UnixStream) -> Option<Value> {
    let read = async {
        let mut prefix = [0; PREFIX_LEN];
        stream.read_exact(&mut prefix).await.ok()?;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes(prefix)).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        Some(serde_json::from_slice(&payload).unwrap())
    };
    timeout(SOON, read).await.unwrap()
}

async fn ask(stream: &mut UnixStream, payload: &[u8]) -> Value {
    stream.write_all(&frame(payload)).await.unwrap();
    reply(stream).await.unwrap()
}

async fn assert_alive(stream: &mut UnixStream) {
    assert_eq!(ask(stream, HEALTH).await["status"], "ok");
}

async fn assert_closed(stream: &mut UnixStream) {
    assert_eq!(timeout(SOON, stream.read(&mut [0])).await.unwrap().unwrap(), 0);
}

fn agent_once(arguments: &[&str]) -> Output {
    // With a time limit: an agent that starts in spite of the test would never end.
    Command::new("timeout").args(["-s", "KILL", "30", BINARY]).args(arguments).output().unwrap()
}

#[tokio::test]
async fn health_identifies_the_agent_and_the_boot() {
    let agent = RunningAgent::start().await;
    let mut stream = agent.stream().await;
    let health = ask(&mut stream, HEALTH).await;
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(health["hostname"], hostname.trim());
    assert_eq!(health["agent"]["name"], "minions-agent");
    assert_eq!(health["agent"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["agent"]["protocol"], 2);
    assert_eq!(health["agent"]["boot_id"], boot_id.trim());
    // An agent has the same instance id on all connections, and another agent has a different one.
    let again = ask(&mut agent.stream().await, HEALTH).await;
    assert_eq!(again["agent"], health["agent"]);
    let other = ask(&mut RunningAgent::start().await.stream().await, HEALTH).await;
    assert_eq!(other["agent"]["boot_id"], health["agent"]["boot_id"]);
    assert_ne!(other["agent"]["instance_id"], health["agent"]["instance_id"]);
}

#[tokio::test]
async fn an_invalid_request_is_refused_and_the_connection_stays_open() {
    let agent = RunningAgent::start().await;
    let mut stream = agent.stream().await;
    let deep = "[".repeat(100_000);
    let nested = format!(r#"{{"type":"health_check","x":{deep}"#);
    let ignored = format!(r#"{{"type":"health_check","x":{deep}{}}}"#, "]".repeat(100_000));
    for (payload, code) in [
        (&b"junk"[..], "bad_request"),
        (b"", "bad_request"),
        (b"{", "bad_request"),
        (b"null", "bad_request"),
        (b"[]", "bad_request"),
        (b"\xff\xfe", "bad_request"),
        (b"\0", "bad_request"),
        (b"{}", "bad_request"),
        (br#"{"type":7}"#, "bad_request"),
        (br#"{"type":"health_check"} {}"#, "bad_request"),
        (br#"{"type":"exec"}"#, "bad_request"),
        (br#"{"type":"exec","command":["ls"]}"#, "bad_request"),
        (br#"{"type":"write_file","path":"/x","content":"","mode":-1}"#, "bad_request"),
        (br#"{"type":"reboot"}"#, "unsupported"),
        (br#"{"type":""}"#, "unsupported"),
        (br#"{"type":"HEALTH_CHECK"}"#, "unsupported"),
        (deep.as_bytes(), "bad_request"),
        (nested.as_bytes(), "bad_request"),
        (ignored.as_bytes(), "bad_request"),
        (&vec![b' '; MAX_FRAME_LEN], "bad_request"),
    ] {
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
        let answer = ask(&mut stream, payload).await;
        assert_eq!(
            (&answer["status"], &answer["code"]),
            (&json!("error"), &json!(code)),
            "{shown}"
        );
        assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
        assert_alive(&mut stream).await;
    }
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let agent = RunningAgent::start().await;
    let mut stream = agent.stream().await;
    let health = br#"{"new":{"a":[1,2]},"type":"health_check","type2":"exec"}"#;
    assert_eq!(ask(&mut stream, health).await["status"], "ok");
    let exec = br#"{"command":"echo","args":["hi"],"tty":true,"type":"exec"}"#;
    assert_eq!(ask(&mut stream, exec).await["stdout"], "hi\n");
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_and_the_connection_closed() {
    let agent = RunningAgent::start().await;
    for length in [u32::try_from(MAX_FRAME_LEN).unwrap() + 1, u32::MAX] {
        let mut stream = agent.stream().await;
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        // Unread bytes must not reset the connection before the reply has arrived.
        stream.write_all(&[b'x'; 10_000]).await.unwrap();
        let answer = reply(&mut stream).await.unwrap();
        assert_eq!(
            (&answer["status"], &answer["code"]),
            (&json!("error"), &json!("frame_too_large"))
        );
        assert_closed(&mut stream).await;
    }
    assert_alive(&mut agent.stream().await).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let agent = RunningAgent::start().await;
    let mut stream = agent.stream().await;
    let mut requests = Vec::new();
    for at in 0..50 {
        // The first requests take longest: a reply out of order would overtake them.
        let delay = if at < 3 { "0.2" } else { "0" };
        let script = format!("sleep {delay}; echo {at}");
        let exec = json!({ "type": "exec", "command": "sh", "args": ["-c", script] });
        requests.extend(frame(exec.to_string().as_bytes()));
        requests.extend(frame(b"junk"));
    }
    stream.write_all(&requests).await.unwrap();
    for at in 0..50 {
        assert_eq!(reply(&mut stream).await.unwrap()["stdout"], format!("{at}\n"));
        assert_eq!(reply(&mut stream).await.unwrap()["code"], "bad_request");
    }
}

#[tokio::test]
async fn a_request_can_arrive_in_any_pieces() {
    let agent = RunningAgent::start().await;
    let mut stream = agent.stream().await;
    let request = frame(HEALTH);
    for byte in &request {
        stream.write_all(&[*byte]).await.unwrap();
        // Gives the agent a chance to read each byte separately.
        tokio::task::yield_now().await;
    }
    assert_eq!(reply(&mut stream).await.unwrap()["status"], "ok");
    for at in 1..request.len() {
        stream.write_all(&request[..at]).await.unwrap();
        // After an answer on another connection, the agent has also read from this one.
        assert_alive(&mut agent.stream().await).await;
        stream.write_all(&request[at..]).await.unwrap();
        assert_eq!(reply(&mut stream).await.unwrap()["status"], "ok", "split at {at}");
    }
}

#[tokio::test]
async fn a_host_that_half_closes_still_gets_its_reply() {
    let agent = RunningAgent::start().await;
    let mut stream = agent.stream().await;
    stream.write_all(&frame(HEALTH)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(reply(&mut stream).await.unwrap()["status"], "ok");
    assert_closed(&mut stream).await;
}

#[tokio::test]
async fn a_disconnect_within_a_frame_does_not_affect_other_connections() {
    let agent = RunningAgent::start().await;
    for at in 0..frame(HEALTH).len() {
        agent.stream().await.write_all(&frame(HEALTH)[..at]).await.unwrap();
    }
    assert_alive(&mut agent.stream().await).await;
}

#[tokio::test]
async fn another_port_is_refused_by_closing_without_a_line() {
    let agent = RunningAgent::start().await;
    for port in [0, 22, 1023, 1025, u32::MAX] {
        let refused = hybrid::dial(&agent.socket(), port, SOON).await.unwrap_err();
        assert!(matches!(refused, DialError::Handshake(HandshakeError::Refused)), "{refused:?}");
    }
    for line in ["GET / HTTP/1.1\r\n\r\n", "CONNECT\n", "CONNECT 1024 \n", "connect 1024\n", "\n"] {
        let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The connection may be closed or reset, but no byte must arrive.
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"", "{line:?}");
    }
    assert_alive(&mut agent.stream().await).await;
}

#[tokio::test]
async fn requests_that_are_not_allowed_are_forbidden() {
    let agent = RunningAgent::with_flags(&["--allow", "health"]).await;
    let mut stream = agent.stream().await;
    for request in [
        &br#"{"type":"exec","command":"true"}"#[..],
        br#"{"type":"report_status"}"#,
        br#"{"type":"write_file","path":"/nowhere/x","content":""}"#,
        // Refused before it is validated: invalid fields are not reported.
        br#"{"type":"configure_network","ip":"nonsense","gateway":"nonsense"}"#,
    ] {
        let answer = ask(&mut stream, request).await;
        assert_eq!((&answer["status"], &answer["code"]), (&json!("error"), &json!("forbidden")));
    }
    assert_alive(&mut stream).await;
}

#[tokio::test]
async fn an_agent_announces_only_what_it_serves() {
    for (flags, features, allowed) in [
        (
            &["--allow", "health,status"][..],
            &["generations", "samples"][..],
            Some(&["health", "status"][..]),
        ),
        (
            &["--allow", "health,exec"],
            &["exec2", "exec_limits", "generations", "reuse"],
            Some(&["health", "exec"]),
        ),
        // A hybrid socket does not imply a guest.
        (
            &[],
            &[
                "exec2",
                "exec_limits",
                "network2",
                "files",
                "forward",
                "file_session",
                "forward_listen",
                "generations",
                "reuse",
                "samples",
            ],
            Some(&["health", "status", "network", "exec", "write_file", "files", "forward"]),
        ),
        (
            &["--allow", "health,status,network,exec,write_file,clock,power,files,forward,quiesce"],
            &[
                "exec2",
                "exec_limits",
                "network2",
                "clock",
                "power",
                "files",
                "forward",
                "file_session",
                "forward_listen",
                "quiesce",
                "generations",
                "reuse",
                "samples",
            ],
            None,
        ),
    ] {
        let agent = RunningAgent::with_flags(flags).await;
        let about = agent.call(&HealthCheck {}).await.unwrap().agent.unwrap();
        assert_eq!(about.features.names().collect::<Vec<_>>(), features, "{flags:?}");
        let allowed = allowed.map(|all| all.iter().map(|&one| one.to_owned()).collect());
        assert_eq!(about.allowed, allowed, "{flags:?}");
    }
}

#[tokio::test]
async fn connections_over_the_limit_get_busy_and_the_others_continue() {
    let agent = RunningAgent::start().await;
    let mut held = Vec::new();
    for _ in 0..minions_agent::agent::MAX_CONNECTIONS {
        let mut stream = agent.stream().await;
        assert_alive(&mut stream).await;
        held.push(stream);
    }
    let mut over = agent.stream().await;
    assert_eq!(ask(&mut over, HEALTH).await["code"], "busy");
    assert_closed(&mut over).await;
    assert_alive(&mut held[0]).await;
    held.pop();
    until("there is room again", async || {
        let answer = ask(&mut agent.stream().await, HEALTH).await;
        (answer["status"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_terminated_removes_its_socket() {
    let mut agent = RunningAgent::start().await;
    let mut stream = agent.stream().await;
    assert_alive(&mut stream).await;
    assert!(terminate(&mut agent).await.success());
    assert_closed(&mut stream).await;
    assert!(!agent.socket().exists());
}

#[tokio::test]
async fn only_the_owner_can_connect() {
    let agent = RunningAgent::start().await;
    let mode = fs::metadata(agent.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_socket_in_use_is_refused() {
    let agent = RunningAgent::start().await;
    let second = agent_once(&["--listen", &listen_value(&agent.socket())]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another process"));
    assert_alive(&mut agent.stream().await).await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let agent = RunningAgent::with(|listen| {
        let path = listen.strip_prefix("hybrid:").unwrap();
        drop(UnixListener::bind(path).unwrap());
        assert!(fs::exists(path).unwrap());
        agent_command(listen)
    })
    .await;
    assert_alive(&mut agent.stream().await).await;
}

#[tokio::test]
async fn a_file_that_is_not_a_socket_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, "content").unwrap();
    let refused = agent_once(&["--listen", &listen_value(&path)]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "content");
}

#[test]
fn version_and_help_are_printed_to_standard_output() {
    let version = agent_once(&["--version"]);
    assert!(version.status.success());
    let expected = concat!("minions-agent ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
    let help = agent_once(&["--help"]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--listen"));
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_why() {
    for (arguments, said) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["stray"], "stray"),
        (&["--listen"], "--listen"),
        (&["--listen", "tcp:1024"], "vsock:PORT, hybrid:PATH or activated"),
        (&["--listen", "vsock:x"], "vsock:PORT, hybrid:PATH or activated"),
        (&["--listen", "vsock:0"], "1 to 4294967294"),
        (&["--port"], "--port"),
        (&["--port", "0"], "must be a VSOCK port, 1 to 4294967294"),
        (&["--port", "4294967295"], "must be a VSOCK port, 1 to 4294967294"),
        (&["--port", "2048", "--listen", "vsock:1024"], "--listen gives VSOCK port 1024"),
        (&["--allow", ""], "is not one of"),
        (&["--allow", "health,reboot"], "\"reboot\" is not one of"),
        (&["--exec-timeout", "soon"], "soon"),
        (&["--exec-timeout", "0"], "--exec-timeout"),
        (&["--log-level", "loud"], "loud"),
    ] {
        let output = agent_once(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(said) && error.contains("--help"), "{arguments:?}: {error}");
        assert_eq!(output.stdout, b"");
    }
}
