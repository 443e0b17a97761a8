//! A VM whose VMM pauses it: asked on the connection that is open, never dialled, ready when it answers.

use serde_json::{Value, json};
use std::sync::Arc;
use testkit::daemon::{Reply, TestDaemon};
use testkit::fake_vmm::{Behaviour, Dialect, FakeVmm, Guest, Manner};

/// A daemon, and a VM that is ready.
async fn ready() -> (TestDaemon, FakeVmm, Guest) {
    let daemon = TestDaemon::start().await;
    let guest = Guest::new("web-1", Dialect::Objects, 1, Arc::default());
    let behaviour = Behaviour::Guest(guest.clone());
    let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
    daemon.until_state("web-1", "ready").await;
    (daemon, vm, guest)
}

fn failed_probes(vm: &Reply) -> u64 {
    vm.json["failed_probes"].as_u64().unwrap()
}

#[tokio::test]
async fn a_paused_vm_is_unreachable_and_ready_by_the_answer_that_was_outstanding() {
    let (daemon, vm, guest) = ready().await;
    let dialled = vm.accepted();
    guest.pause();
    let silent = daemon.until_state("web-1", "unreachable").await;
    assert_eq!(silent.json["cause"], "probes_failed");
    let reason = &silent.json["reason"];
    assert_eq!(
        (&reason["failure"], &reason["layer"]),
        (&json!("paused_or_hung"), &json!("agent_silent"))
    );
    let message = reason["message"].as_str().unwrap();
    assert!(message.contains("is paused, starved or hangs"), "{message}");
    for resource in ["health", "status"] {
        let call = daemon.get(&format!("/vms/web-1/{resource}")).await;
        call.assert_problem(503, "agent_unreachable");
        assert_eq!(call.json["retryable"], true);
    }
    daemon.until("/vms/web-1", |vm| failed_probes(vm) >= 5).await;
    assert_eq!(vm.accepted(), dialled, "a paused VM was dialled");
    guest.resume();
    let back = daemon.until_state("web-1", "ready").await;
    assert_eq!((&back.json["cause"], &back.json["reason"]), (&json!("answered"), &Value::Null));
    assert_eq!(vm.accepted(), dialled, "the answer came on the connection that was open");
    assert_eq!(daemon.get("/vms/web-1/status").await.status, 200);
}

#[tokio::test]
async fn a_call_without_an_idle_connection_waits_for_the_probes_answer_and_does_not_dial() {
    let (daemon, vm, guest) = ready().await;
    let dialled = vm.accepted();
    guest.pause();
    daemon.until("/vms/web-1", |vm| failed_probes(vm) >= 1).await;
    let impatient = daemon.get("/vms/web-1/status?timeout_ms=200").await;
    impatient.assert_problem(504, "agent_timeout");
    assert_eq!(impatient.json["may_have_executed"], false, "nothing was sent");
    assert_eq!(vm.accepted(), dialled, "a paused VM was dialled");
    let patient = daemon.get("/vms/web-1/status?timeout_ms=60000");
    let (patient, ()) = tokio::join!(patient, async { guest.resume() });
    assert_eq!(patient.status, 200, "{patient:?}");
    assert_eq!(vm.accepted(), dialled + 1);
}

#[tokio::test]
async fn a_call_makes_the_daemon_ask_before_it_dials() {
    let (daemon, vm, guest) = ready().await;
    // The last answer is too old to be a sign that the VM runs now.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let (dialled, answers) = (vm.accepted(), guest.answers());
    guest.pause();
    let call = daemon.get("/vms/web-1/status?timeout_ms=300").await;
    call.assert_problem(504, "agent_timeout");
    assert_eq!(vm.accepted(), dialled, "a paused VM was dialled");
    guest.resume();
    daemon.until("/vms/web-1/status", |status| status.status == 200).await;
    assert!(guest.answers() > answers);
}

#[tokio::test]
async fn calls_that_fail_because_the_vm_is_paused_do_not_make_the_daemon_dial_it() {
    let (daemon, vm, guest) = ready().await;
    // An idle connection, on which the first call waits.
    assert_eq!(daemon.get("/vms/web-1/status").await.status, 200);
    let dialled = vm.accepted();
    guest.pause();
    for _ in 0..3 {
        daemon.get("/vms/web-1/status?timeout_ms=150").await.assert_problem(504, "agent_timeout");
    }
    let open = daemon.until_state("web-1", "unreachable").await;
    assert_eq!(open.json["cause"], "calls_failed");
    daemon.until("/vms/web-1", |vm| failed_probes(vm) >= 2).await;
    assert_eq!(vm.accepted(), dialled, "a paused VM was dialled");
    guest.resume();
    // What decides is an answer on a new connection: the old one says nothing about calls.
    daemon.until_state("web-1", "ready").await;
    assert_eq!(vm.accepted(), dialled + 1);
    assert_eq!(daemon.get("/vms/web-1/status").await.status, 200);
}

#[tokio::test]
async fn a_reset_shows_when_the_question_is_repeated() {
    let (daemon, vm, guest) = ready().await;
    guest.behave(Manner::Mute);
    daemon.until("/vms/web-1", |vm| failed_probes(vm) >= 1).await;
    let dialled = vm.accepted();
    guest.behave(Manner::Well);
    guest.restart(2, true);
    let back = daemon
        .until("/vms/web-1", |vm| {
            vm.json["state"] == "ready" && vm.json["agent"]["boot_id"] == "web-1 boot 2"
        })
        .await;
    assert_eq!(failed_probes(&back), 0);
    assert_eq!(vm.accepted(), dialled + 1);
}
