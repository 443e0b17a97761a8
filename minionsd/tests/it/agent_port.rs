//! Agents on other ports than the default one, and other services on an agent's port.

use minionsd::config::{AgentPorts, PortRule};
use serde_json::json;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wire::framed;

#[tokio::test]
async fn each_agent_is_reached_on_the_port_of_its_vm() {
    let port = |number: i64| number.try_into().unwrap();
    let daemon = TestDaemon::with(|config| {
        let rule = PortRule { vms: "web-*".parse().unwrap(), port: port(4_294_967_294) };
        config.agent_ports = AgentPorts { default: port(2048), rules: vec![rule] };
    })
    .await;
    let start = |name, open| {
        let healthy = Behaviour::Agent(agent().unwrap());
        FakeVmm::start_on_port(daemon.sockets(), name, port(open), healthy).unwrap()
    };
    let _vms = [start("web-1", 4_294_967_294), start("db-1", 2048), start("db-2", 1024)];
    for (name, port) in [("web-1", 4_294_967_294_u32), ("db-1", 2048)] {
        let ready = daemon.until_state(name, "ready").await;
        assert_eq!(ready.json["agent_port"], port);
        let ran = daemon.exec(name, "echo", &["here"]).await;
        assert_eq!(ran.json["stdout"], "here\n", "{ran:?}");
    }
    let other = daemon.until_state("db-2", "unreachable").await;
    assert_eq!(other.json["reason"]["failure"], "no_agent");
    let message = other.json["reason"]["message"].as_str().unwrap();
    assert!(message.contains("no agent listens on port 2048"), "{message}");
    let listed = daemon.get("/vms").await;
    assert_eq!(listed.json["vms"][1]["agent_port"], 2048);
}

#[tokio::test]
async fn the_default_port_applies_unless_it_is_configured() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    assert_eq!(daemon.get("/vms/web-1").await.json["agent_port"], 1024);
}

#[tokio::test]
async fn a_service_on_the_agents_port_is_named_with_the_port() {
    let daemon = TestDaemon::with(|config| {
        config.agent_ports.default = 2048.try_into().unwrap();
    })
    .await;
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec();
    for (name, behaviour, looks_like) in [
        (
            "ssh",
            Behaviour::SpeaksFirst(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()),
            "an SSH server: \"SSH-2.0-OpenSSH_9.2p1\"",
        ),
        // Sent in one write with the handshake, so that it arrives before the first request.
        (
            "ssh-early",
            Behaviour::Grants(b"OK 1\nSSH-2.0-x\x1b[31m\r\n".to_vec()),
            "an SSH server: \"SSH-2.0-x\"",
        ),
        (
            "http",
            Behaviour::AnswersOnce(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            "an HTTP server: \"HTTP/1.1 400 Bad Request\"",
        ),
        (
            "qemu-ga",
            Behaviour::Replies(b"{\"error\": {\"class\": \"GenericError\"}}\n".to_vec()),
            "a service that sends JSON lines, such as qemu-guest-agent: \"{\\\"error\\\": {\\\"class\\\"",
        ),
        // Shorter than the frame that its prefix announces: no further byte arrives.
        ("grpc", Behaviour::SpeaksFirst(settings), "an HTTP/2 or gRPC server)"),
        (
            "ttrpc",
            Behaviour::Replies(b"\0\0\0\x04\0\0\0\x01\x02\0\x0a\x02\x08\x0c".to_vec()),
            "a TTRPC server",
        ),
        (
            "framed",
            Behaviour::Replies(framed("pong")),
            "a service with another length-prefixed protocol)",
        ),
        ("noise", Behaviour::SpeaksFirst(vec![0xff; 100_000]), "a service with a binary protocol"),
    ] {
        let port = 2048.try_into().unwrap();
        let _vm = FakeVmm::start_on_port(daemon.sockets(), name, port, behaviour).unwrap();
        let seen = daemon.until_state(name, "unreachable").await;
        let reason = &seen.json["reason"];
        assert_eq!(reason["failure"], "protocol_error", "{name}: {reason}");
        let message = reason["message"].as_str().unwrap();
        let expected = format!(
            "another service answers on port 2048 in the guest (it looks like {looks_like}"
        );
        assert!(message.starts_with(&expected), "{name}: {message}");
        assert!(message.len() < 300 && !message.contains('\x1b'), "{name}: {message}");
        let call = daemon.get(&format!("/vms/{name}/health")).await;
        call.assert_problem(503, "agent_unreachable");
        assert_eq!(call.json["failure"], "protocol_error");
    }
}

#[tokio::test]
async fn the_error_for_a_reply_that_no_agent_sends_names_the_port() {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Replies(framed(r#"{"jsonrpc":"2.0"}"#));
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
    let seen = daemon.until_state("web-1", "unreachable").await;
    assert_eq!(seen.json["reason"]["failure"], json!("protocol_error"));
    let message = seen.json["reason"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("the answer on port 1024 in the guest violates the protocol"),
        "{message}"
    );
}
