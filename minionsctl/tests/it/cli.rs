//! Commands as a user runs them, against a daemon in this process.

use crate::shared::command::{Ran, minionsctl};
use serde_json::{Value, json};
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm};
use testkit::wait::until_async;
use testkit::wire::framed;

async fn ctl(daemon: &TestDaemon, args: &[&str]) -> Ran {
    run(&[&["--host", &daemon.host()], args].concat()).await
}

async fn direct(vm: &FakeVmm, args: &[&str]) -> Ran {
    run(&[&["--socket", vm.path().to_str().unwrap()], args].concat()).await
}

/// Runs `minionsctl` while the daemon and the agent of the test run in its thread.
async fn run(args: &[&str]) -> Ran {
    let mut command = minionsctl(args);
    tokio::task::spawn_blocking(move || Ran::of(&mut command)).await.unwrap()
}

#[tokio::test]
async fn every_command_prints_a_table_or_json() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    ctl(&daemon, &["wait", "web-1"]).await.assert(0, "web-1 is ready", "");
    ctl(&daemon, &["ls"]).await.assert(0, "web-1  ready", "");
    ctl(&daemon, &["get", "web-1"]).await.assert(0, "Connections:", "");
    ctl(&daemon, &["health", "web-1"]).await.assert(0, "minions-agent", "");
    ctl(&daemon, &["status", "web-1"]).await.assert(0, "Kernel:", "");
    ctl(&daemon, &["network", "web-1"]).await.assert(0, "127.0.0.1/8", "");
    for verb in ["get", "health", "status", "network"] {
        assert!(ctl(&daemon, &["-o", "json", verb, "web-1"]).await.json().is_object());
    }
    assert_eq!(ctl(&daemon, &["ls", "-o", "json"]).await.json()["vms"][0]["name"], "web-1");
}

#[tokio::test]
async fn exec_passes_output_and_exit_code_through() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    let program = "echo out; echo err >&2; exit 37";
    let ran = ctl(&daemon, &["exec", "web-1", "--", "sh", "-c", program]).await;
    assert_eq!((ran.code, &ran.stdout[..], ran.stderr.as_str()), (37, &b"out\n"[..], "err\n"));
    for (program, code) in [("exit 0", 0), ("kill -SEGV $$", 139), ("kill -TERM $$", 143)] {
        ctl(&daemon, &["exec", "web-1", "--", "sh", "-c", program]).await.assert(code, "", "");
        direct(&vm, &["exec", "--", "sh", "-c", program]).await.assert(code, "exit_code", "");
    }
    let late = ["exec", "--timeout", "100ms", "web-1", "--", "sleep", "100"];
    ctl(&daemon, &late).await.assert(124, "", "");
    ctl(&daemon, &["exec", "web-1", "--", "/nowhere"]).await.assert(127, "", "not found");
    ctl(&daemon, &["exec", "web-1", "--", "/etc/passwd"]).await.assert(126, "", "error:");
    direct(&vm, &["exec", "--", "/nowhere"]).await.assert(127, "", "not found");
    direct(&vm, &["exec", "--", "/etc/passwd"]).await.assert(126, "", "error:");
}

#[tokio::test]
async fn a_lost_program_is_never_a_success() {
    let daemon = TestDaemon::start().await;
    ctl(&daemon, &["exec", "nope", "--", "true"]).await.assert(125, "", "no VM named nope");
    let gone = ["--host", "http://127.0.0.1:1", "exec", "x", "--", "true"];
    run(&gone).await.assert(125, "", "hint: is minionsd");
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::HangsUp).unwrap();
    direct(&vm, &["exec", "--", "true"]).await.assert(125, "", "connection lost");
    let odd = json!({ "status": "ok", "exit_code": 256, "stdout": "", "stderr": "" });
    vm.switch_to(Behaviour::Replies(framed(&odd)));
    direct(&vm, &["exec", "--", "true"]).await.assert(125, "", "");
}

#[tokio::test]
async fn a_usage_error_of_exec_has_its_own_exit_code() {
    run(&["exec", "-z", "web-1", "ls"]).await.assert(125, "", "Usage:");
    run(&["helth"]).await.assert(2, "", "Usage:");
    run(&["--help"]).await.assert(0, "Usage:", "");
    run(&[]).await.assert(0, "Usage:", "");
    run(&["rm", "web-1"]).await.assert(2, "", "hint: `minionsctl kill VM ID --remove`");
    let report = run(&["-o", "json", "helth"]).await;
    let report: Value = serde_json::from_str(&report.stderr).unwrap();
    assert_eq!(report["code"], "invalid_usage");
    for exec in [
        &["exec"][..],
        &["exec", "get", "--bogus"],
        &["attach"],
        &["-o", "json", "attach", "web-1", "-x"],
    ] {
        run(exec).await.assert(125, "", "Usage:");
    }
    // The name of a VM or a value, not the command.
    for other in [
        &["get", "exec", "more"][..],
        &["health", "attach", "--bogus"],
        &["kill", "exec", "attach", "--bogus"],
        &["--host", "exec", "get"],
        &["--bogus", "get", "exec"],
    ] {
        run(other).await.assert(2, "", "Usage:");
    }
}

#[tokio::test]
async fn a_token_is_never_sent_over_the_network_in_the_clear() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "0123456789abcdefghijklmn").unwrap();
    let args =
        ["--token-file", token.path().to_str().unwrap(), "--host", "http://192.0.2.1:7070", "ls"];
    run(&args).await.assert(1, "", "in the clear");
}

#[tokio::test]
async fn without_the_daemon_the_agents_reply_is_printed_as_json() {
    let (_daemon, vm) = TestDaemon::with_vm().await;
    let health = direct(&vm, &["health"]).await;
    assert_eq!((health.code, &health.json()["agent"]["protocol"]), (0, &json!(2)));
    assert!(direct(&vm, &["status"]).await.json()["memory_total_mb"].is_u64());
    assert!(direct(&vm, &["network"]).await.json()["interfaces"].is_array());
    vm.switch_to(Behaviour::Replies(framed(
        json!({ "status": "ok", "uptime_secs": 1, "hostname": "h", "from_the_future": [1] }),
    )));
    assert_eq!(direct(&vm, &["health"]).await.json()["from_the_future"], json!([1]));
}

#[tokio::test]
async fn control_characters_from_a_guest_are_escaped() {
    let daemon = TestDaemon::start().await;
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}name\r\n";
    let agent = json!({
        "name": evil, "version": evil, "protocol": 2, "features": [evil],
        "boot_id": evil, "instance_id": evil,
    });
    let health = json!({ "status": "ok", "uptime_secs": 1, "hostname": evil, "agent": agent });
    let vm =
        FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Replies(framed(&health))).unwrap();
    daemon.until_state("web-1", "ready").await;
    let refusal = json!({ "status": "error", "message": evil, "code": "io_failed" });
    let mut seen = Vec::new();
    for args in [
        &["ls"][..],
        &["get", "web-1"],
        &["health", "web-1"],
        &["health", "web-1", "-o", "json"],
        &["ls", "-o", "json"],
    ] {
        seen.push(ctl(&daemon, args).await);
    }
    seen.push(direct(&vm, &["health"]).await);
    vm.switch_to(Behaviour::Replies(framed(&refusal)));
    seen.push(direct(&vm, &["health"]).await);
    for ran in seen {
        let text = String::from_utf8(ran.stdout).unwrap() + &ran.stderr;
        assert!(text.contains("name"), "{text:?}");
        let active = text.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
        assert_eq!(active, None, "{text:?}");
    }
}

#[tokio::test]
async fn an_error_comes_with_advice() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    ctl(&daemon, &["health", "nope"]).await.assert(1, "", "hint: `minionsctl ls`");
    ctl(&daemon, &["health"]).await.assert(1, "", "no VM given");
    direct(&vm, &["ls"]).await.assert(1, "", "leave --socket out");
    direct(&vm, &["health", "web-1"]).await.assert(1, "", "leave the VM out");
    let net = ["--ip", "10.0.0.2/33", "--gateway", "10.0.0.1"];
    let bad = "`ip` is \"10.0.0.2/33\": the prefix length must be 1 to 32";
    ctl(&daemon, &[&["configure-network", "web-1"], &net[..]].concat()).await.assert(1, "", bad);
    direct(&vm, &[&["configure-network"], &net[..]].concat()).await.assert(1, "", bad);
    ctl(&daemon, &["--timeout", "200ms", "wait", "nope"]).await.assert(1, "", "not ready in time");
    run(&["--host", "ftp://x", "ls"]).await.assert(
        1,
        "",
        "must be http://HOST:PORT, https://HOST:PORT or unix://PATH",
    );
    vm.switch_to(Behaviour::Refuses);
    direct(&vm, &["health"]).await.assert(1, "", "hint: is minions-agent installed");
}

#[tokio::test]
async fn a_malformed_request_file_is_reported_with_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("network.json");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let configure = async |path: &str| {
        let args = ["--host", "http://127.0.0.1:1", "configure-network", "web-1", "-f", path];
        run(&args).await
    };
    let path = file("{\n  \"dns\": [\"1.1.1.1\",]\n}");
    let error =
        format!("error: {path} contains malformed JSON: trailing comma at line 2 column 21");
    configure(&path).await.assert(1, "", &error);
    let path = file("{ \"mtu\":\n \"big\" }");
    let error =
        format!("error: {path} is not a network configuration: invalid type: string \"big\"");
    configure(&path).await.assert(1, "", &error);
    configure(&path).await.assert(1, "", "at line 2 column 6");
    configure("/nowhere").await.assert(1, "", "error: cannot read /nowhere: ");
}

#[tokio::test]
async fn the_environment_can_name_the_unix_socket() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let host = format!("unix://{}", daemon.unix_socket().display());
    let mut command = minionsctl(&["exec", "web-1", "--", "echo", "hi"]);
    command.env("MINIONS_HOST", host);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    assert_eq!(output.await.unwrap().stdout, b"hi\n");
}

#[tokio::test]
async fn watch_prints_events_as_they_happen() {
    let daemon = TestDaemon::start().await;
    for format in ["table", "json"] {
        let command = minionsctl(&["--host", &daemon.host(), "-o", format, "watch", "web-1"]);
        let mut watching = tokio::process::Command::from(command)
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = tokio::io::BufReader::new(watching.stdout.take().unwrap());
        let mut lines = tokio::io::AsyncBufReadExt::lines(lines);
        let heard = |figures: String| figures.contains("minions_event_readers 1\n");
        until_async("watch follows the events", async || heard(metrics(&daemon).await)).await;
        let agent = testkit::fake_vmm::agent().unwrap();
        let agent = Behaviour::Agent(agent);
        let vm = FakeVmm::start_as(daemon.sockets(), "web-1", agent, "vmm").unwrap();
        let mut next = async || {
            let line = tokio::time::timeout(testkit::daemon::DEADLINE, lines.next_line()).await;
            line.unwrap().unwrap().unwrap()
        };
        let (found, ready) = (next().await, next().await);
        assert!(found.contains("web-1") && found.contains("vm.found"), "{found}");
        match format {
            "table" => {
                assert!(ready.ends_with("vm.state  connecting -> ready (answered)"), "{ready}")
            }
            _ => {
                let ready: Value = serde_json::from_str(&ready).unwrap();
                assert_eq!(
                    (&ready["type"], &ready["state"]),
                    (&json!("vm.state"), &json!("ready"))
                );
            }
        }
        drop(vm);
        watching.kill().await.unwrap();
        daemon.until("/vms", |list| list.json["vms"] == json!([])).await;
        let left = async || metrics(&daemon).await.contains("minions_event_readers 0\n");
        until_async("the daemon has no reader of events", left).await;
    }
}

async fn metrics(daemon: &TestDaemon) -> String {
    daemon.http.get(daemon.url("/metrics")).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_the_broken_layer_and_gives_advice() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    let found = ctl(&daemon, &["-o", "json", "doctor", "web-1"]).await;
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let verdict = |layer: &str| {
        let findings = found["findings"].as_array().unwrap().iter();
        findings.filter(|one| one["layer"] == layer).map(|one| one["verdict"].clone()).next()
    };
    for layer in ["daemon", "socket", "vmm", "connect", "agent", "version", "clock"] {
        assert_eq!(verdict(layer), Some("fine".into()), "{layer}: {found}");
    }
    vm.switch_to(Behaviour::Refuses);
    daemon.until_state("web-1", "unreachable").await;
    let broken = ctl(&daemon, &["doctor", "web-1"]).await;
    for text in ["BROKEN", "install minions-agent", "not reached"] {
        broken.assert(1, text, "");
    }
    ctl(&daemon, &["doctor", "nope"]).await.assert(1, "no VM named nope", "");
    run(&["--host", "http://127.0.0.1:1", "doctor", "web-1"]).await.assert(
        1,
        "minionsd  BROKEN",
        "",
    );
}
