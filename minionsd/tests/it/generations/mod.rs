//! Guests that were restored from a snapshot or cloned.

mod agents;
mod scripted;
mod seen;

use crate::faults::Events;
use minions_proto::message::RestoreStepKind;
use minionsd::config::{ClockLimit, RestorePolicy, RestoreRule, RestoreRules};
use scripted::ScriptedGuest;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use testkit::daemon::{Reply, TestDaemon};

/// Waits until the VM is ready as this generation.
async fn until_generation(daemon: &TestDaemon, vm: &str, generation: u64) -> Reply {
    let is_next =
        |vm: &Reply| vm.json["state"] == "ready" && vm.json["agent"]["generation"] == generation;
    daemon.until(&format!("/vms/{vm}"), is_next).await
}

fn instance(vm: &Reply) -> &str {
    vm.json["agent"]["instance_id"].as_str().unwrap()
}

/// Makes the supervisor probe at once, as a refused or failed call does.
async fn probe(daemon: &TestDaemon, vm: &str) {
    // The guest does not know the request; three of these open the circuit breaker, which probes.
    daemon.get(&format!("/vms/{vm}/status?timeout_ms=1000")).await;
}

#[tokio::test]
async fn a_guest_under_another_vmm_is_restored_before_it_is_ready() {
    let daemon = TestDaemon::start().await;
    let guest = ScriptedGuest::booted("first");
    let vmm = guest.start(daemon.sockets(), "web-1");
    let before = daemon.until_state("web-1", "ready").await;
    assert_eq!(before.json["restore"], Value::Null);
    assert_eq!(
        guest.memory().plain,
        1,
        "the first health check on a connection has the base bytes"
    );
    let mut events = Events::of(&daemon).await;
    drop(vmm);
    let _vmm = guest.start(daemon.sockets(), "web-1");
    let after = until_generation(&daemon, "web-1", 1).await;
    assert_ne!(instance(&after), "first");
    assert_eq!(after.json["agent"]["parent_instance_id"], "first");
    assert_eq!(after.json["incarnation"]["generation"], 1);
    let restore = &after.json["restore"];
    assert_eq!(
        (&restore["state"], &restore["parent_instance_id"]),
        (&json!("done"), &json!("first"))
    );
    let steps: Vec<_> =
        restore["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["entropy", "clock"], "the default");
    let restored = events.first_kinds("vm.restored", 1).await;
    let is_ready = restored.iter().position(|kind| *kind == "vm.restored").unwrap();
    assert!(!restored[..is_ready].contains(&"vm.rebooted"), "{restored:?}");
    let event = events.first("vm.restored");
    assert_eq!(
        (&event["parent"], &event["incarnation"]),
        (&json!("first"), &after.json["incarnation"])
    );
    assert_eq!(event["state"], Value::Null);
    let request = guest.memory().restores[0].clone();
    assert_eq!((request["parent"].as_str(), &request["required"]), (Some("first"), &Value::Null));
    assert_eq!(request["entropy"].as_str().unwrap().len(), 88, "64 bytes");
}

#[tokio::test]
async fn the_event_of_a_restore_comes_before_the_vm_is_ready() {
    let daemon = TestDaemon::start().await;
    let guest = ScriptedGuest::booted("first");
    let vmm = guest.start(daemon.sockets(), "web-1");
    daemon.until_state("web-1", "ready").await;
    drop(vmm);
    daemon.until_state("web-1", "stale").await;
    guest.memory().slow = 2;
    let mut events = Events::of(&daemon).await;
    let _vmm = guest.start(daemon.sockets(), "web-1");
    until_generation(&daemon, "web-1", 1).await;
    let kinds: Vec<_> =
        events.first_kinds("vm.restored", 1).await.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!(kinds, ["vm.replaced", "vm.state", "vm.restored"], "unreachable while steps run");
    let waiting = events.first("vm.state");
    assert_eq!(
        (&waiting["state"], &waiting["cause"]),
        (&json!("unreachable"), &json!("restoring"))
    );
    assert_eq!(waiting["reason"]["failure"], "restoring");
    assert_eq!(events.first_kinds("vm.state", 2).await.last(), Some(&"vm.state"));
    assert_eq!(guest.memory().restores.len(), 3);
    assert_eq!(guest.memory().generation, 1, "it was asked again, and made one generation");
}

#[tokio::test]
async fn a_restarted_daemon_and_a_second_one_do_not_take_a_vm_for_restored() {
    let first = TestDaemon::start().await;
    let guest = ScriptedGuest::booted("first");
    let _vmm = guest.start(first.sockets(), "web-1");
    first.until_state("web-1", "ready").await;
    let sockets = first.sockets().to_owned();
    let beside = |config: &mut minionsd::config::Config| config.socket_dir = sockets.clone();
    let second = TestDaemon::with(beside).await;
    second.until_state("web-1", "ready").await;
    let probes = guest.memory().probes;
    for daemon in [&first, &second] {
        probe(daemon, "web-1").await;
    }
    drop(second);
    let restarted = TestDaemon::with(beside).await;
    let vm = restarted.until_state("web-1", "ready").await;
    assert_eq!(instance(&vm), "first");
    let memory = guest.snapshot();
    assert!(memory.probes > probes);
    assert_eq!((memory.tokens.len(), memory.restores.len()), (1, 0));
}

#[tokio::test]
async fn a_guest_that_goes_back_to_a_snapshot_within_its_vmm_is_restored() {
    let daemon = TestDaemon::start().await;
    let guest = ScriptedGuest::booted("first");
    let _vmm = guest.start(daemon.sockets(), "web-1");
    daemon.until_state("web-1", "ready").await;
    let snapshot = guest.snapshot();
    let reached = |probes: u64| {
        let guest = guest.clone();
        testkit::wait::until_async("it is probed", async move || {
            (guest.memory().probes > probes).then_some(())
        })
    };
    let mut events = Events::of(&daemon).await;
    let mut instances = vec!["first".to_owned()];
    for _ in 0..2 {
        let probes = guest.memory().probes;
        reached(probes).await;
        guest.rewind(snapshot.clone());
        let is_other = |vm: &Reply| {
            vm.json["state"] == "ready"
                && vm.json["agent"]["generation"] == 1
                && !instances.contains(&instance(vm).to_owned())
        };
        let vm = daemon.until("/vms/web-1", is_other).await;
        assert_eq!(vm.json["agent"]["parent_instance_id"], "first");
        instances.push(instance(&vm).to_owned());
    }
    events.first_kinds("vm.restored", 2).await;
    assert_eq!(events.first("vm.restored")["parent"], "first");
}

#[tokio::test]
async fn clones_of_one_parent_get_different_instances_and_name_a_parent_that_runs() {
    let daemon = TestDaemon::start().await;
    let parent = ScriptedGuest::booted("first");
    let vmm = parent.start(daemon.sockets(), "parent");
    daemon.until_state("parent", "ready").await;
    let snapshot = parent.snapshot();
    let mut events = Events::of(&daemon).await;
    let clone = |name: &str| {
        let guest = ScriptedGuest::from_snapshot(snapshot.clone());
        (guest.start(daemon.sockets(), name), guest)
    };
    let _clone_1 = clone("clone-1");
    let one = until_generation(&daemon, "clone-1", 1).await;
    events.until("vm.cloned").await;
    let event = events.first("vm.cloned");
    assert_eq!(
        (&event["vm"], &event["parent"], &event["parent_vm"]),
        (&json!("clone-1"), &json!("first"), &json!("parent"))
    );
    assert!(!events.kinds().contains(&"vm.restored"));
    // The parent has ended: the next clone is a restored guest.
    drop(vmm);
    daemon.until_state("parent", "stale").await;
    let _clone_2 = clone("clone-2");
    let two = until_generation(&daemon, "clone-2", 1).await;
    events.until("vm.restored").await;
    assert_eq!(events.first("vm.restored")["parent_vm"], Value::Null);
    assert_ne!(instance(&one), instance(&two));
    assert_eq!(one.json["incarnation"]["boot_id"], two.json["incarnation"]["boot_id"]);
}

fn rules(steps: &[RestoreStepKind], required: &[RestoreStepKind]) -> RestoreRules {
    let policy = RestorePolicy {
        steps: steps.to_vec(),
        required: required.to_vec(),
        hostname: "{vm}.example".into(),
        ..RestorePolicy::default()
    };
    RestoreRules(vec![RestoreRule { vms: "web-*".parse().unwrap(), policy: policy.into() }])
}

#[tokio::test]
async fn a_required_step_that_fails_keeps_the_vm_from_being_ready_until_it_succeeds() {
    use RestoreStepKind::{Entropy, Hooks, Hostname};
    let daemon =
        TestDaemon::with(|config| config.restore = rules(&[Entropy, Hostname, Hooks], &[Hooks]))
            .await;
    let guest = ScriptedGuest::booted("first");
    let vmm = guest.start(daemon.sockets(), "web-1");
    daemon.until_state("web-1", "ready").await;
    drop(vmm);
    guest.memory().failing = Some("hooks");
    let _vmm = guest.start(daemon.sockets(), "web-1");
    let failed = |vm: &Reply| vm.json["reason"]["failure"] == "restore_failed";
    let vm = daemon.until("/vms/web-1", failed).await;
    assert_eq!(vm.json["state"], "unreachable");
    let message = vm.json["reason"]["message"].as_str().unwrap();
    assert!(message.contains("hooks: broken"), "{message}");
    let call = daemon.get("/vms/web-1/health").await;
    call.assert_problem(503, "agent_unreachable");
    assert_eq!(
        (&call.json["failure"], &call.json["retryable"]),
        (&json!("restore_failed"), &json!(true))
    );
    assert_eq!(guest.memory().restores[0]["hostname"], "web-1.example");
    // Without a request it is not repeated at once: hooks may be expensive.
    assert_eq!(guest.memory().restores.len(), 1);
    guest.memory().failing = None;
    let report = daemon.post("/vms/web-1/restored", json!({})).await;
    assert_eq!((report.status, &report.json["state"]), (200, &json!("done")), "{report:?}");
    assert_eq!(report.json["generation"], 1, "the steps ran again, in the same generation");
    until_generation(&daemon, "web-1", 1).await;
    // The steps by hand, on a guest that is ready: another generation.
    let report = daemon.post("/vms/web-1/restored", json!({})).await;
    assert_eq!((&report.json["state"], &report.json["generation"]), (&json!("done"), &json!(2)));
}

#[tokio::test]
async fn clones_of_a_guest_that_was_never_probed_become_generations_by_hand() {
    let daemon = TestDaemon::start().await;
    // Its agent has seen no token, as every agent at its first start.
    let template = ScriptedGuest::booted("template").snapshot();
    let clone = |name: &str| {
        let guest = ScriptedGuest::from_snapshot(template.clone());
        (guest.start(daemon.sockets(), name), guest)
    };
    let clones = [("clone-1", clone("clone-1")), ("clone-2", clone("clone-2"))];
    for (name, _) in &clones {
        let vm = daemon.until_state(name, "ready").await;
        assert_eq!((instance(&vm), &vm.json["restore"]), ("template", &Value::Null));
    }
    let mut made = Vec::new();
    for (name, (_, guest)) in &clones {
        let report = daemon.post(&format!("/vms/{name}/restored"), json!({})).await;
        assert_eq!((report.status, &report.json["state"]), (200, &json!("done")), "{report:?}");
        let vm = until_generation(&daemon, name, 1).await;
        let entropy = guest.memory().restores[0]["entropy"].as_str().unwrap().to_owned();
        made.push((instance(&vm).to_owned(), entropy));
    }
    assert!(made[0].0 != made[1].0 && made[0].1 != made[1].1, "{made:?}");
}

#[tokio::test]
async fn the_clock_of_a_guest_is_left_alone_if_its_rule_says_so() {
    let daemon = TestDaemon::with(|config| {
        config.clock_limit = Some(Duration::from_secs(1));
        config.restore = rules(&[], &[]);
        Arc::make_mut(&mut config.restore.0[0].policy).clock_limit = ClockLimit::Off;
    })
    .await;
    let start = |name: &str| {
        let guest = ScriptedGuest::booted(name);
        guest.memory().time_unix_ms = Some(0);
        (guest.start(daemon.sockets(), name), guest)
    };
    let [(_web, web), (_db, db)] = ["web-1", "db"].map(start);
    // A clock is set before the VM is ready.
    daemon.until_state("web-1", "ready").await;
    daemon.until_state("db", "ready").await;
    assert_eq!((web.memory().clocks_set, db.memory().clocks_set), (0, 1));
}

#[tokio::test]
async fn a_request_to_restore_is_checked_and_needs_an_agent_that_can() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    daemon
        .post("/vms/web-1/restored", json!({ "steps": [] }))
        .await
        .assert_problem(422, "invalid_request");
    daemon.post("/vms/no/restored", json!({})).await.assert_problem(404, "vm_not_found");
    let base = testkit::wire::framed(json!({ "status": "ok", "uptime_secs": 1, "hostname": "h" }));
    let behaviour = testkit::fake_vmm::Behaviour::Replies(base);
    let _old = testkit::fake_vmm::FakeVmm::start(daemon.sockets(), "old", behaviour).unwrap();
    daemon.until_state("old", "ready").await;
    daemon.post("/vms/old/restored", json!({})).await.assert_problem(501, "agent_too_old");
}

#[tokio::test]
async fn a_guest_that_lies_about_its_generation_only_harms_itself() {
    let daemon = TestDaemon::start().await;
    let well = ScriptedGuest::booted("well");
    let _well = well.start(daemon.sockets(), "well");
    daemon.until_state("well", "ready").await;
    let liar = ScriptedGuest::booted("well");
    {
        let mut memory = liar.memory();
        // The id of another guest, a parent that never was, a restore that no daemon saw.
        (memory.parent, memory.generation) = (Some("p".repeat(100_000)), u64::MAX);
        memory.restore = Some("done");
    }
    let _liar = liar.start(daemon.sockets(), "liar");
    let vm = daemon.until_state("liar", "ready").await;
    assert!(vm.json["agent"]["parent_instance_id"].as_str().unwrap().len() <= 256);
    // It claims to wait for a restore, and answers nonsense to it.
    liar.memory().restore = Some("required");
    let garbage = ScriptedGuest::booted("garbage");
    garbage.memory().restore = Some("teleported");
    let _garbage = garbage.start(daemon.sockets(), "garbage");
    daemon.until_state("garbage", "ready").await;
    let well = daemon.get("/vms/well").await;
    assert_eq!(
        (&well.json["state"], &well.json["agent"]["instance_id"]),
        (&json!("ready"), &json!("well"))
    );
    assert_eq!(well.json["restore"], Value::Null);
}
