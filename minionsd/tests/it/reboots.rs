//! Guests that reboot, boot and power off, as real VMMs show it. The test's own process is the VMM, unless a VM has
//! a process of its own.

use crate::fault_matrix::{IN_TIME, LONG};
use crate::faults::{Events, World};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::daemon::{Reply, TestDaemon};
use testkit::fake_vmm::{Behaviour, Boot, Dialect, FakeVmm, Guest, Manner};
use testkit::wait::until_async as until;
use tokio::time::sleep;

/// Longer than the daemon waits for the answer to a `CONNECT`.
const BOOT: Duration = Duration::from_secs(5);

fn guest(life: u64) -> Guest {
    Guest::new("web-1", Dialect::Objects, life, Arc::default())
}

async fn power(daemon: &TestDaemon, action: &str) -> Reply {
    let reply = daemon.post("/vms/web-1/power", json!({ "action": action })).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    reply
}

fn reason(vm: &Reply) -> (&str, &str) {
    let reason = &vm.json["reason"];
    (reason["failure"].as_str().unwrap_or(""), reason["message"].as_str().unwrap_or(""))
}

/// Waits until the VM is not ready for this reason.
async fn until_reason(daemon: &TestDaemon, state: &str, failure: &str) -> Reply {
    daemon.until("/vms/web-1", |vm| vm.json["state"] == state && reason(vm).0 == failure).await
}

/// Asks for the health until told to stop: every failure may be retried.
async fn retry(daemon: &TestDaemon, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        let call = daemon.get("/vms/web-1/health").await;
        if call.status != 200 {
            call.assert_problem(503, "agent_unreachable");
            assert_eq!(call.json["retryable"], true);
            assert!(call.headers.contains_key("retry-after"));
        }
        assert_eq!(daemon.get("/vms/web-1").await.status, 200);
    }
}

#[tokio::test]
async fn socket_recreated_by_its_vmm_unreachable_rebooting_503_then_vm_rebooted() {
    for dialect in [Dialect::Objects, Dialect::Base] {
        reboots_as_on_cloud_hypervisor(World::speaking(dialect).await).await;
    }
}

#[tokio::test]
async fn a_call_ends_when_the_guest_was_reset_and_has_no_agent_yet() {
    let World { daemon, guest, .. } = &World::speaking(Dialect::Objects).await;
    guest.behave(Manner::Hangs);
    let is_asked = |vm: &Reply| vm.json["pool"]["in_use"] == 1;
    let (call, ()) = tokio::join!(daemon.get("/vms/web-1/status?timeout_ms=600000"), async {
        daemon.until("/vms/web-1", is_asked).await;
        // The guest's kernel boots: it resets connections on which the host sends data, such as that of the probes, and
        // refuses new ones. The VMM keeps all others open.
        guest.set_listening(false);
        guest.restart(2, true);
        guest.behave(Manner::Well);
    });
    call.assert_problem(502, "connection_lost");
    until_reason(daemon, "unreachable", "no_agent").await;
    guest.set_listening(true);
    daemon.until_state("web-1", "ready").await;
}

async fn reboots_as_on_cloud_hypervisor(mut world: World) {
    let mut events = Events::of(&world.daemon).await;
    let before = world.daemon.get("/vms/web-1").await;
    let World { daemon, vm, guest, ledger } = &mut world;
    guest.behave(Manner::Hangs);
    ledger.open(1, "web-1");
    let body = json!({ "command": "soak", "args": ["1"] });
    let (call, ()) = tokio::join!(daemon.post("/vms/web-1/exec", body), async {
        until("it runs", async || ledger.runs(1).unwrap().there == 1).await;
        vm.remove_socket().await.unwrap();
    });
    call.assert_problem(502, "connection_lost");
    assert_eq!(call.json["may_have_executed"], true);
    let absent = until_reason(daemon, "unreachable", "rebooting").await;
    assert!(reason(&absent).1.contains("has removed the socket file"), "{absent:?}");
    guest.behave(Manner::Well);
    guest.restart(2, true);
    let boot = Boot::of(guest.clone());
    let done = AtomicBool::new(false);
    let reboot = async {
        sleep(Duration::from_millis(300)).await;
        vm.create_socket(Behaviour::Boots(boot.clone())).unwrap();
        let silent = |vm: &Reply| vm.json["reason"]["layer"] == "no_handshake";
        let booting = daemon.until("/vms/web-1", silent).await;
        assert_eq!(booting.json["state"], "unreachable");
        assert_eq!(reason(&booting).0, "rebooting");
        assert!(reason(&booting).1.contains("is booting, paused, or hangs"), "{booting:?}");
        boot.completes();
        let after = daemon.until_state("web-1", "ready").await;
        done.store(true, Ordering::SeqCst);
        after
    };
    let ((), after) = tokio::join!(retry(daemon, &done), reboot);
    events.until("vm.rebooted").await;
    assert_eq!(events.kinds(), ["vm.state", "vm.state", "vm.rebooted"]);
    let state = events.first("vm.state");
    assert_eq!(
        (&state["before"], &state["state"], &state["cause"], &state["reason"]["failure"]),
        (&json!("ready"), &json!("unreachable"), &json!("rebooting"), &json!("rebooting"))
    );
    let of = |vm: &Reply, field: &str| vm.json["incarnation"][field].clone();
    assert_eq!(of(&after, "vmm_pid"), of(&before, "vmm_pid"));
    assert_eq!(events.first("vm.rebooted")["incarnation"], after.json["incarnation"]);
    assert_eq!(after.json["reason"], Value::Null);
    assert_eq!(world.order(2, LONG).await.json["stdout"], "web-1 2 2\n");
    assert_eq!(world.ran(1), 1, "it was started again by itself");
}

#[tokio::test]
async fn vmm_ends_while_its_socket_is_removed_gone_at_once() {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Guest(guest(1));
    let mut vm = FakeVmm::start_as(daemon.sockets(), "web-1", behaviour, "vmm").unwrap();
    daemon.until_state("web-1", "ready").await;
    let mut events = Events::of(&daemon).await;
    vm.remove_socket().await.unwrap();
    until_reason(&daemon, "unreachable", "rebooting").await;
    let ended = Instant::now();
    vm.crash();
    events.until("vm.gone").await;
    assert!(ended.elapsed() < IN_TIME, "{:?}", ended.elapsed());
    assert_eq!(events.kinds(), ["vm.state", "vm.gone"]);
    daemon.get("/vms/web-1/health").await.assert_problem(404, "vm_not_found");
}

#[tokio::test]
async fn socket_recreated_by_another_process_vm_replaced() {
    let World { daemon, mut vm, guest, .. } = World::new().await;
    let mut events = Events::of(&daemon).await;
    vm.remove_socket().await.unwrap();
    until_reason(&daemon, "unreachable", "rebooting").await;
    let successor = Behaviour::Guest(guest.successor(2));
    let new = FakeVmm::start_as(daemon.sockets(), "web-1", successor, "vmm").unwrap();
    let ready = daemon.until_state("web-1", "ready").await;
    assert_eq!(ready.json["incarnation"]["vmm_pid"], new.pid());
    events.until("vm.replaced").await;
    assert!(!events.kinds().contains(&"vm.rebooted"), "{:?}", events.kinds());
    // Its file is the other one's now.
    vm.crash();
}

#[tokio::test]
async fn connect_unanswered_during_a_boot_no_handshake_then_ready() {
    let daemon = TestDaemon::start().await;
    let mut events = Events::of(&daemon).await;
    let boot = Boot::of(guest(1));
    let behaviour = Behaviour::Boots(boot.clone());
    let vm = FakeVmm::start_as(daemon.sockets(), "web-1", behaviour, "firecracker").unwrap();
    let booting = until_reason(&daemon, "unreachable", "no_handshake").await;
    assert!(reason(&booting).1.contains("is booting, paused, or hangs"), "{booting:?}");
    let call = daemon.get("/vms/web-1/health").await;
    call.assert_problem(503, "agent_unreachable");
    assert_eq!(
        (&call.json["retryable"], &call.json["failure"]),
        (&json!(true), &json!("no_handshake"))
    );
    // The fault itself, not a wait for something to come about.
    sleep(BOOT).await;
    boot.completes();
    let answered = Instant::now();
    daemon.until_state("web-1", "ready").await;
    assert!(answered.elapsed() < IN_TIME, "{:?}", answered.elapsed());
    assert_eq!(events.first_kinds("vm.state", 2).await, ["vm.found", "vm.state", "vm.state"]);
    assert_eq!(vm.half_connects(), 0);
}

#[tokio::test]
async fn poweroff_on_a_vmm_without_a_power_switch_powered_off_until_another_boot_answers() {
    let daemon = TestDaemon::start().await;
    let guest = guest(1);
    let behaviour = Behaviour::Guest(guest.clone());
    let vm = FakeVmm::start_as(daemon.sockets(), "web-1", behaviour, "firecracker").unwrap();
    daemon.until_state("web-1", "ready").await;
    let accepted = power(&daemon, "poweroff").await;
    assert_eq!(accepted.json["boot_id"], "web-1 boot 1");
    let kill = format!("kill {}", vm.pid());
    let next_step = accepted.json["next_step"].as_str().unwrap();
    assert!(next_step.contains("process") && next_step.ends_with(&kill), "{next_step}");
    assert_eq!(daemon.get("/vms/web-1").await.json["state"], "ready", "it has not happened yet");
    // The agent has ended, then the guest.
    for (behaviour, layer) in
        [(Behaviour::Refuses, "no_agent"), (Behaviour::NeverGrants, "no_handshake")]
    {
        vm.switch_to(behaviour);
        let off = daemon.until("/vms/web-1", |vm| vm.json["reason"]["layer"] == layer).await;
        assert_eq!(off.json["reason"]["halted"], layer == "no_handshake", "{off:?}");
        assert_eq!(reason(&off).0, "powered_off", "{off:?}");
        let off = until_reason(&daemon, "unreachable", "powered_off").await;
        assert!(reason(&off).1.contains("powered off"), "{off:?}");
        let call = daemon.get("/vms/web-1/health").await;
        call.assert_problem(503, "agent_unreachable");
        assert_eq!(call.json["failure"], "powered_off");
    }
    let off = daemon.get("/vms/web-1").await;
    assert!(reason(&off).1.contains(&kill), "{off:?}");
    guest.restart(2, true);
    vm.switch_to(Behaviour::Guest(guest.clone()));
    daemon.until_state("web-1", "ready").await;
    vm.switch_to(Behaviour::Refuses);
    until_reason(&daemon, "unreachable", "no_agent").await;
}

#[tokio::test]
async fn poweroff_and_the_end_of_the_vmm_stale_powered_off_names_the_file_to_remove() {
    let World { daemon, vm, .. } = World::new().await;
    let accepted = power(&daemon, "poweroff").await;
    assert_eq!(accepted.json.get("next_step"), None, "this VMM ends with its guest");
    let remove = format!("rm -f {}", vm.path().canonicalize().unwrap().display());
    vm.crash();
    let stale = until_reason(&daemon, "stale", "powered_off").await;
    assert_eq!(stale.json["reason"]["layer"], "no_listener");
    assert_eq!(stale.json["reason"]["halted"], true);
    assert!(reason(&stale).1.ends_with(&remove), "{stale:?}");
}

#[tokio::test]
async fn poweroff_behind_a_backend_that_recreates_its_socket_powered_off_not_rebooting() {
    let World { daemon, mut vm, .. } = World::new().await;
    let mut events = Events::of(&daemon).await;
    power(&daemon, "poweroff").await;
    vm.switch_to(Behaviour::Refuses);
    until_reason(&daemon, "unreachable", "powered_off").await;
    vm.remove_socket().await.unwrap();
    vm.create_socket(Behaviour::Refuses).unwrap();
    let off = daemon.until("/vms/web-1", |vm| vm.json["reason"]["halted"] == true).await;
    assert_eq!((off.json["state"].as_str(), reason(&off).0), (Some("unreachable"), "powered_off"));
    vm.switch_to(Behaviour::Guest(guest(2)));
    events.until("vm.rebooted").await;
    assert_eq!(events.kinds(), ["vm.state", "vm.state", "vm.rebooted"]);
}

#[tokio::test]
async fn reboot_on_a_vmm_that_ends_with_it_stale_names_the_file_to_remove() {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Guest(guest(1));
    let vm = FakeVmm::start_as(daemon.sockets(), "web-1", behaviour, "firecracker").unwrap();
    daemon.until_state("web-1", "ready").await;
    let remove = format!("rm -f {}", vm.path().canonicalize().unwrap().display());
    let accepted = power(&daemon, "reboot").await;
    assert!(accepted.json["next_step"].as_str().unwrap().contains(&remove), "{accepted:?}");
    vm.crash();
    let stale = until_reason(&daemon, "stale", "no_listener").await;
    assert!(reason(&stale).1.ends_with(&remove), "{stale:?}");
}

#[tokio::test]
async fn reboot_asked_for_over_a_socket_that_stays_rebooting_until_another_boot_answers() {
    let World { daemon, vm, guest, .. } = World::new().await;
    let mut events = Events::of(&daemon).await;
    let accepted = power(&daemon, "reboot").await;
    assert_eq!(accepted.json["boot_id"], "web-1 boot 1");
    vm.switch_to(Behaviour::Refuses);
    let booting = until_reason(&daemon, "unreachable", "rebooting").await;
    assert_eq!(booting.json["reason"]["layer"], "no_agent");
    guest.restart(2, true);
    vm.switch_to(Behaviour::Guest(guest));
    events.until("vm.rebooted").await;
    let ready = daemon.until_state("web-1", "ready").await;
    assert_eq!(ready.json["agent"]["boot_id"], "web-1 boot 2");
    vm.switch_to(Behaviour::Refuses);
    until_reason(&daemon, "unreachable", "no_agent").await;
}
