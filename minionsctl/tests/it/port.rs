//! The agent's port on the command line, and findings of the doctor about other services on it.

use minions_proto::AgentPort;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

fn port(number: i64) -> AgentPort {
    number.try_into().unwrap()
}

/// Runs minionsctl without the configuration of this machine, with these variables.
async fn run(args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_minionsctl"));
    command.args(args).env_remove("MINIONS_HOST").env_remove("MINIONS_TOKEN_FILE");
    command.env_remove("MINIONS_AGENT_PORT").env("XDG_CONFIG_HOME", nowhere.path());
    command.envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

async fn direct(vm: &FakeVmm, args: &[&str]) -> (i32, String, String) {
    run(&[&["--socket", vm.path().to_str().unwrap()], args].concat(), &[]).await
}

#[tokio::test]
async fn an_agent_is_reached_directly_on_the_given_port() {
    let dir = tempfile::tempdir().unwrap();
    let healthy = Behaviour::Agent(agent().unwrap());
    let vm = FakeVmm::start_on_port(dir.path(), "web-1", port(2048), healthy).unwrap();
    let (code, stdout, _) = direct(&vm, &["--port", "2048", "health"]).await;
    assert_eq!((code, stdout.contains("uptime_secs")), (0, true));
    let socket = vm.path().to_str().unwrap();
    let variable = [("MINIONS_AGENT_PORT", "2048")];
    assert_eq!(run(&["--socket", socket, "health"], &variable).await.0, 0);
    let (code, _, stderr) = run(&["--socket", socket, "--port", "2049", "health"], &variable).await;
    assert!(code == 1 && stderr.contains("in the guest, on port 2049?"), "{stderr}");
    let (code, _, stderr) = direct(&vm, &["health"]).await;
    assert!(code == 1 && stderr.contains("in the guest, on port 1024?"), "{stderr}");
    // A stream uses the same port.
    let program = ["--port", "2048", "exec", "-e", "A=b", "--", "sh", "-c", "echo $A"];
    assert_eq!(direct(&vm, &program).await.1, "b\n");
}

#[tokio::test]
async fn an_invalid_port_is_shown_and_a_port_without_a_socket_is_refused() {
    for value in ["0", "-1", "4294967295", "x", ""] {
        let (code, _, stderr) =
            run(&["--socket", "/s", &format!("--port={value}"), "health"], &[]).await;
        assert!(code == 2 && stderr.contains("--port"), "{value}: {stderr}");
        assert!(value.is_empty() || stderr.contains("1 to 4294967294"), "{value}: {stderr}");
    }
    let variable = [("MINIONS_AGENT_PORT", "0")];
    let (code, _, stderr) = run(&["--socket", "/s", "health"], &variable).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("`MINIONS_AGENT_PORT` is \"0\": must be a VSOCK port"), "{stderr}");
    let (code, _, stderr) = run(&["--port", "2048", "ls"], &[]).await;
    assert!(code == 1 && stderr.contains("agent_port"), "{stderr}");
}

#[tokio::test]
async fn a_configuration_file_can_set_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let healthy = Behaviour::Agent(agent().unwrap());
    let vm = FakeVmm::start_on_port(dir.path(), "web-1", port(2048), healthy).unwrap();
    std::fs::create_dir(dir.path().join("minions")).unwrap();
    let socket = vm.path().to_str().unwrap();
    let ask = async |number: &str| {
        let file = dir.path().join("minions/config.toml");
        std::fs::write(file, format!("agent_port = {number}\n")).unwrap();
        let place = [("XDG_CONFIG_HOME", dir.path().to_str().unwrap())];
        run(&["--socket", socket, "health"], &place).await
    };
    assert_eq!(ask("2048").await.0, 0);
    let (code, _, stderr) = ask("0").await;
    assert!(code == 1 && stderr.contains("`agent_port` is \"0\""), "{stderr}");
}

#[tokio::test]
async fn another_service_is_recognised_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let banner = Behaviour::SpeaksFirst(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec());
    let vm = FakeVmm::start(dir.path(), "web-1", banner).unwrap();
    for args in [&["health"][..], &["exec", "-e", "A=b", "--", "true"]] {
        let (code, _, stderr) = direct(&vm, args).await;
        assert!(matches!(code, 1 | 125), "{stderr}");
        let expected = "another service answers on port 1024 in the guest (it looks like an SSH server: \
                        \"SSH-2.0-OpenSSH_9.2p1\")";
        assert!(stderr.contains(expected) && stderr.contains("hint: "), "{stderr}");
        assert!(stderr.contains("--port"), "{stderr}");
    }
}

/// Returns the doctor's finding about the agent, and its advice.
async fn finding(daemon: &TestDaemon, vm: &str) -> (String, String) {
    let host = daemon.host();
    let (code, stdout, stderr) = run(&["--host", &host, "-o", "json", "doctor", vm], &[]).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    let diagnosis: Value = serde_json::from_str(&stdout).unwrap();
    let findings = diagnosis["findings"].as_array().unwrap();
    let of_agent = findings.iter().find(|finding| finding["layer"] == "agent").unwrap();
    assert_eq!(of_agent["verdict"], "broken", "{stdout}");
    let text = |field: &str| of_agent[field].as_str().unwrap().to_owned();
    (text("finding"), text("advice"))
}

#[tokio::test]
async fn the_doctor_says_what_else_answers_on_the_agents_port() {
    let daemon = TestDaemon::with(|config| config.agent_ports.default = port(2048)).await;
    let bad_request = || b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n".to_vec();
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec();
    for (name, behaviour, looks_like) in [
        (
            "ssh",
            Behaviour::SpeaksFirst(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()),
            "an SSH server: \"SSH-2.0-OpenSSH_9.2p1\"",
        ),
        (
            "http",
            Behaviour::AnswersOnce(bad_request()),
            "an HTTP server: \"HTTP/1.1 400 Bad Request\"",
        ),
        // Waits for the end of a line, which no frame contains.
        (
            "http-lines",
            Behaviour::AnswersTo(b"\r\n".to_vec(), bad_request()),
            "an HTTP server: \"HTTP/1.1 400 Bad Request\"",
        ),
        ("grpc", Behaviour::SpeaksFirst(settings.clone()), "an HTTP/2 or gRPC server"),
        // Waits for the preface of its client.
        (
            "grpc-second",
            Behaviour::AnswersTo(b"PRI * HTTP/2.0\r\n".to_vec(), settings),
            "an HTTP/2 or gRPC server",
        ),
        (
            "ttrpc",
            Behaviour::AnswersTo(
                b"\x01\0\x0a\x07minions".to_vec(),
                b"\0\0\0\x04\0\0\0\x01\x02\0\x0a\x02\x08\x0c".to_vec(),
            ),
            "a TTRPC server",
        ),
        (
            "qemu-ga",
            Behaviour::Replies(b"{\"error\": {\"class\": \"GenericError\"}}\n".to_vec()),
            "a service that sends JSON lines, such as qemu-guest-agent",
        ),
        ("mute", Behaviour::Silent, "a service that accepts connections and sends nothing"),
        ("hangs-up", Behaviour::HangsUp, "a service that accepts connections and sends nothing"),
    ] {
        let _vm = FakeVmm::start_on_port(daemon.sockets(), name, port(2048), behaviour).unwrap();
        daemon.until_state(name, "unreachable").await;
        let (found, advice) = finding(&daemon, name).await;
        assert!(found.contains("another service answers on port 2048"), "{name}: {found}");
        assert!(found.contains(&format!("(it looks like {looks_like}")), "{name}: {found}");
        assert!(advice.contains("set agent_port") && advice.contains("--port"), "{name}: {advice}");
        assert!(advice.contains(&format!("\"{name}\"")), "{name}: {advice}");
    }
}

#[tokio::test]
async fn an_agent_that_has_answered_once_receives_no_requests_of_other_protocols() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    vm.switch_to(Behaviour::Silent);
    daemon.until_state("web-1", "unreachable").await;
    let before = vm.accepted();
    let (found, advice) = finding(&daemon, "web-1").await;
    assert!(found.contains("did not answer a health check"), "{found}");
    assert!(!advice.contains("agent_port"), "{advice}");
    assert_eq!(vm.accepted(), before, "the doctor dialled a VM that may be paused");
}

#[tokio::test]
async fn the_port_is_shown_with_the_vm() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let (code, stdout, _) = run(&["--host", &daemon.host(), "get", "web-1"], &[]).await;
    let line = stdout.lines().find(|line| line.starts_with("Agent port:")).unwrap();
    assert_eq!((code, line.ends_with(" 1024")), (0, true), "{stdout}");
}

#[tokio::test]
async fn a_hint_follows_from_the_reason_of_a_failed_connection() {
    let dir = tempfile::tempdir().unwrap();
    let hint = async |path: &Path| {
        let (code, _, stderr) = run(&["--socket", path.to_str().unwrap(), "health"], &[]).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(!stderr.contains("only root"), "{stderr}");
        stderr
    };
    let long = hint(&dir.path().join("x".repeat(108))).await;
    assert!(long.contains("hint: the path of a Unix socket has at most 107 bytes"), "{long}");
    let missing = hint(&dir.path().join("no.vsock")).await;
    assert!(missing.contains("hint: is the VM running"), "{missing}");
    let file = dir.path().join("file.vsock");
    std::fs::write(&file, "").unwrap();
    assert!(hint(&file).await.contains("hint: this file is not a socket"));
    assert!(!hint(&file.join("below")).await.contains("hint:"), "ENOTDIR explains itself");
    let stale = dir.path().join("stale.vsock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(hint(&stale).await.contains("start the VM"));
    // Connections to minionsd get the same hints.
    let to_daemon = async |path: &Path| {
        run(&["--host", &format!("unix://{}", path.display()), "ls"], &[]).await.2
    };
    let long = to_daemon(&dir.path().join("x".repeat(108))).await;
    assert!(long.contains("hint: the path of a Unix socket has at most 107 bytes"), "{long}");
    assert!(to_daemon(&stale).await.contains("hint: is minionsd running?"));
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(closed.join("d.sock")).unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    other.arg(env!("CARGO_BIN_EXE_minionsctl")).arg("--host");
    other.arg(format!("unix://{}", closed.join("d.sock").display())).arg("ls");
    other.env("XDG_CONFIG_HOME", "/nonexistent");
    let denied = tokio::task::spawn_blocking(move || other.output().unwrap()).await.unwrap();
    let stderr = String::from_utf8(denied.stderr).unwrap();
    assert!(
        stderr.contains("hint: use this socket as root or as a member of the group minions"),
        "{stderr}"
    );
    drop(listener);
}
