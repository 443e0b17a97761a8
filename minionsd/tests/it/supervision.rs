//! State of faulty VMs in the daemon, and their recovery without help.

use serde_json::json;
use std::time::Duration;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wire::framed;

fn well() -> Behaviour {
    Behaviour::Agent(agent().unwrap())
}

#[tokio::test]
async fn each_fault_is_reported_with_its_layer() {
    let daemon = TestDaemon::start().await;
    for (name, behaviour, failure) in [
        ("refuses", Behaviour::Refuses, "no_agent"),
        ("mute", Behaviour::NeverGrants, "no_handshake"),
        ("garbled", Behaviour::Grants(b"HTTP/1.1 400 Bad Request\n".to_vec()), "bad_handshake"),
        ("endless", Behaviour::Grants(vec![b'O'; 10_000]), "bad_handshake"),
        ("silent", Behaviour::Silent, "agent_silent"),
        ("hangs-up", Behaviour::HangsUp, "agent_closed"),
        ("chatty", Behaviour::SpeaksFirst(framed("{}")), "agent_closed"),
        ("oversize", Behaviour::Replies(vec![0xff; 8]), "protocol_error"),
        ("not-json", Behaviour::Replies(framed("nonsense")), "protocol_error"),
        ("twice", Behaviour::Replies(framed("{}").repeat(2)), "protocol_error"),
        (
            "drips",
            Behaviour::Drips(framed("{\"status\":\"ok\"}"), Duration::from_millis(200)),
            "agent_silent",
        ),
        (
            "says-no",
            Behaviour::Replies(framed(r#"{"status":"error","message":"no"}"#)),
            "agent_error",
        ),
    ] {
        let vm = FakeVmm::start(daemon.sockets(), name, behaviour).unwrap();
        let path = format!("/vms/{name}");
        let seen = daemon.until(&path, |vm| vm.json["failed_probes"].as_u64() >= Some(1)).await;
        let reason = &seen.json["reason"];
        // A byte sent before the request may arrive before or after the request is sent.
        let either = name == "chatty" && reason["failure"] == "protocol_error";
        assert!(either || reason["failure"] == failure, "{name}: {reason}");
        assert!(reason["message"].as_str().is_some_and(|message| !message.is_empty()));
        daemon.until_state(name, "unreachable").await;
        let health = daemon.get(&format!("/vms/{name}/health")).await;
        health.assert_problem(503, "agent_unreachable");
        assert_eq!(health.json["may_have_executed"], false);
        assert_eq!(vm.half_connects(), 0, "{name}: a client left in the middle of CONNECT");
    }
}

#[tokio::test]
async fn a_killed_vm_is_stale_at_once_and_does_not_affect_another() {
    let daemon = TestDaemon::start().await;
    let victim = FakeVmm::start(daemon.sockets(), "victim", well()).unwrap();
    let _other = FakeVmm::start(daemon.sockets(), "other", well()).unwrap();
    daemon.until_state("victim", "ready").await;
    let other = daemon.until_state("other", "ready").await;
    let path = victim.path().to_owned();
    victim.crash();
    let stale = daemon.until_state("victim", "stale").await;
    assert_eq!(stale.json["reason"]["failure"], "no_listener");
    daemon.get("/vms/victim/health").await.assert_problem(503, "agent_unreachable");
    assert!(path.exists(), "the daemon removed a socket file");
    assert_eq!(daemon.get("/vms/other/health").await.status, 200);
    assert_eq!(daemon.get("/vms/other").await.json["since"], other.json["since"]);
}

#[tokio::test]
async fn a_vm_that_boots_again_is_ready_without_help() {
    let daemon = TestDaemon::start().await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", well()).unwrap();
    let before = daemon.until_state("web-1", "ready").await;
    let path = vm.path().to_owned();
    vm.crash();
    daemon.until_state("web-1", "stale").await;
    std::fs::remove_file(path).unwrap();
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", well()).unwrap();
    let after = daemon.until_state("web-1", "ready").await;
    assert_ne!(after.json["agent"]["instance_id"], before.json["agent"]["instance_id"]);
    assert_eq!(daemon.exec("web-1", "true", &[]).await.json["exit_code"], 0);
}

#[tokio::test]
async fn another_vm_under_the_same_name_never_gets_the_old_ones_connections() {
    let daemon = TestDaemon::start().await;
    let _old = FakeVmm::start(daemon.sockets(), "web-1", well()).unwrap();
    let before = daemon.until_state("web-1", "ready").await;
    assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
    let new = FakeVmm::start_as(daemon.sockets(), "new", well(), "vmm").unwrap();
    std::fs::rename(new.path(), daemon.sockets().join("web-1.vsock")).unwrap();
    let old_id = before.json["agent"]["instance_id"].clone();
    daemon
        .until("/vms/web-1/health", |health| {
            health.status == 200 && health.json["agent"]["instance_id"] != old_id
        })
        .await;
}

#[tokio::test]
async fn an_agent_that_goes_silent_ends_a_call_at_its_deadline() {
    let daemon = TestDaemon::start().await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", well()).unwrap();
    daemon.until_state("web-1", "ready").await;
    vm.switch_to(Behaviour::Silent);
    let exec = daemon.post("/vms/web-1/exec?timeout_ms=300", json!({ "command": "true" })).await;
    // The status depends on whether the daemon has noticed the silence before the call.
    assert!(matches!(exec.status, 503 | 504), "{exec:?}");
    daemon.until_state("web-1", "unreachable").await;
    vm.switch_to(well());
    daemon.until_state("web-1", "ready").await;
    assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
}

#[tokio::test]
async fn a_connection_lost_during_a_program_means_may_have_executed() {
    let daemon = TestDaemon::start().await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", well()).unwrap();
    daemon.until_state("web-1", "ready").await;
    let (exec, ()) = tokio::join!(daemon.exec("web-1", "sleep", &["30"]), async {
        daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 1).await;
        // The pool counts a stream from its checkout on; the running program shows that the request has arrived.
        tokio::time::timeout(testkit::daemon::DEADLINE, running("sleep 30")).await.unwrap();
        vm.switch_to(well());
    });
    exec.assert_problem(502, "connection_lost");
    assert_eq!(exec.json["may_have_executed"], true);
}

/// Waits until a child process of this test has this command line.
async fn running(command_line: &str) {
    let expected = command_line.replace(' ', "\0") + "\0";
    let is_ours = |pid: &str| {
        let parent = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent =
            parent.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)?.parse().ok());
        parent == Some(std::process::id())
            && std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line == expected)
    };
    loop {
        let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
        if processes.any(|process| process.file_name().to_str().is_some_and(is_ours)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_guest_that_answers_and_hangs_up_is_not_dialled_without_pause() {
    let daemon = TestDaemon::start().await;
    let health = framed(r#"{"status":"ok","uptime_secs":1,"hostname":"h"}"#);
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::AnswersOnce(health)).unwrap();
    daemon.until_state("web-1", "ready").await;
    // The counting period, not a wait for an effect: without pauses there would be ten thousand dials.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(vm.accepted() < 50, "{} connections in two seconds", vm.accepted());
}

#[tokio::test]
async fn a_call_to_a_replaced_agent_fails_at_once() {
    let daemon = TestDaemon::start().await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", well()).unwrap();
    daemon.until_state("web-1", "ready").await;
    let path = vm.path().to_owned();
    let (exec, ()) = tokio::join!(daemon.exec("web-1", "sleep", &["31"]), async {
        tokio::time::timeout(testkit::daemon::DEADLINE, running("sleep 31")).await.unwrap();
        // Another VM takes the name; the old one's connections stay open, and silent.
        std::fs::rename(&path, daemon.sockets().join("moved")).unwrap();
        let _new = FakeVmm::start_as(daemon.sockets(), "web-1", well(), "vmm").unwrap();
        daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 0).await;
    });
    exec.assert_problem(502, "connection_lost");
    assert_eq!(exec.json["may_have_executed"], true);
    drop(vm);
}

#[tokio::test]
async fn the_directory_may_be_removed_and_created_again() {
    let daemon = TestDaemon::with(|config| config.socket_dir = config.socket_dir.join("vms")).await;
    let dir = daemon.sockets().join("vms");
    daemon.until("/readyz", |ready| ready.status == 200).await;
    for _ in 0..2 {
        std::fs::create_dir(&dir).unwrap();
        let vm = FakeVmm::start(&dir, "web-1", well()).unwrap();
        daemon.until_state("web-1", "ready").await;
        drop(vm);
        std::fs::remove_dir_all(&dir).unwrap();
        daemon.until("/vms", |list| list.json["vms"] == json!([])).await;
    }
}

#[tokio::test]
async fn a_hundred_vms_at_once_are_all_ready() {
    let daemon = TestDaemon::start().await;
    let _vms: Vec<_> = (0..100)
        .map(|n| {
            let behaviour = Behaviour::Agent(agent().unwrap());
            FakeVmm::start(daemon.sockets(), &format!("vm-{n}"), behaviour).unwrap()
        })
        .collect();
    daemon
        .until("/vms", |list| {
            let vms = list.json["vms"].as_array().unwrap();
            vms.len() == 100 && vms.iter().all(|vm| vm["state"] == "ready")
        })
        .await;
}

#[tokio::test]
async fn the_error_of_a_health_check_is_shown_up_to_a_limit() {
    let daemon = TestDaemon::start().await;
    let reply = json!({ "status": "error", "message": "disk on fire ".repeat(50_000) });
    let behaviour = Behaviour::Replies(framed(reply));
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
    let seen = daemon.until_state("web-1", "unreachable").await;
    let message = seen.json["reason"]["message"].as_str().unwrap();
    assert!(message.contains("with an error: disk on fire") && message.len() < 400, "{message}");
}
