//! What a daemon sees of a restore that another one began, or whose steps do not end.

use super::scripted::{AgentMemory, ScriptedGuest};
use super::{instance, rules, until_generation};
use crate::faults::Events;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minions_proto::message::RestoreStepKind::{Clock, Entropy};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use testkit::daemon::{Reply, TestDaemon};
use testkit::minionsd::Minionsd;

/// Returns the memory of a guest that another daemon has made the next generation of `first`.
fn restored(restore: &'static str) -> AgentMemory {
    AgentMemory {
        instance: "second".into(),
        parent: Some("first".into()),
        generation: 1,
        restore: Some(restore),
        ..AgentMemory::default()
    }
}

fn is_restore_failed(vm: &Reply) -> bool {
    vm.json["state"] == "unreachable" && vm.json["reason"]["failure"] == "restore_failed"
}

#[tokio::test]
async fn a_generation_that_another_daemon_has_made_is_reported_once_before_the_vm_is_ready() {
    let daemon = TestDaemon::start().await;
    let guest = ScriptedGuest::booted("first");
    let vmm = guest.start(daemon.sockets(), "web-1");
    daemon.until_state("web-1", "ready").await;
    drop(vmm);
    daemon.until_state("web-1", "stale").await;
    let mut events = Events::of(&daemon).await;
    let guest = ScriptedGuest::from_snapshot(restored("done"));
    let vmm = guest.start(daemon.sockets(), "web-1");
    let vm = until_generation(&daemon, "web-1", 1).await;
    assert_eq!((instance(&vm), &vm.json["restore"]), ("second", &Value::Null));
    // The same generation again, and then one that this daemon makes: the last event.
    drop(vmm);
    let _vmm = guest.start(daemon.sockets(), "web-1");
    daemon.until("/vms/web-1", |vm| vm.json["agent"]["generation"] == 2).await;
    let kinds = events.first_kinds("vm.restored", 2).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == "vm.restored").count(), 2, "{kinds:?}");
    assert_eq!(kinds[..3], ["vm.replaced", "vm.restored", "vm.state"]);
    let event = events.first("vm.restored");
    assert_eq!((&event["parent"], &event["vm"]), (&json!("first"), &json!("web-1")));
    assert_eq!(event["incarnation"], vm.json["incarnation"]);
    assert_eq!(guest.memory().restores.len(), 1);
}

#[tokio::test]
async fn a_daemon_that_starts_while_the_steps_run_reports_the_generation_and_a_later_one_does_not()
{
    let daemon = TestDaemon::start().await;
    let mut events = Events::of(&daemon).await;
    let guest = ScriptedGuest::from_snapshot(AgentMemory { slow: 2, ..restored("running") });
    let _vmm = guest.start(daemon.sockets(), "web-1");
    let vm = until_generation(&daemon, "web-1", 1).await;
    events.until("vm.restored").await;
    let event = events.first("vm.restored");
    assert_eq!(
        (&event["parent"], &event["incarnation"]),
        (&json!("first"), &vm.json["incarnation"])
    );
    let later = TestDaemon::start().await;
    let mut events = Events::of(&later).await;
    let guest = ScriptedGuest::from_snapshot(restored("done"));
    let _later_vmm = guest.start(later.sockets(), "web-1");
    until_generation(&later, "web-1", 1).await;
    // An event after those of the VM.
    let _other = ScriptedGuest::booted("other").start(later.sockets(), "web-2");
    let kinds = events.first_kinds("vm.found", 2).await;
    assert!(!kinds.contains(&"vm.restored"), "{kinds:?}");
}

#[tokio::test]
async fn steps_that_failed_before_a_daemon_asked_are_not_repeated_at_once() {
    let daemon = TestDaemon::start().await;
    let guest = ScriptedGuest::from_snapshot(restored("failed"));
    let _vmm = guest.start(daemon.sockets(), "web-1");
    let vm = daemon.until("/vms/web-1", is_restore_failed).await;
    let message = vm.json["reason"]["message"].as_str().unwrap();
    assert!(message.contains("the steps run again in 30 s"), "{message}");
    assert_eq!(guest.memory().restores.len(), 0);
    let report = daemon.post("/vms/web-1/restored", json!({})).await;
    assert_eq!((report.status, &report.json["state"]), (200, &json!("done")), "{report:?}");
    until_generation(&daemon, "web-1", 1).await;
    assert_eq!(guest.memory().restores.len(), 1);
}

#[tokio::test]
async fn steps_that_do_not_end_fail_after_their_limit_and_may_still_succeed() {
    let limit = Some(Duration::from_millis(300));
    let daemon = TestDaemon::with(|config| {
        config.restore = rules(&[Entropy, Clock], &[]);
        Arc::make_mut(&mut config.restore.0[0].policy).steps_timeout = limit;
    })
    .await;
    let guest = ScriptedGuest::booted("first");
    let vmm = guest.start(daemon.sockets(), "web-1");
    daemon.until_state("web-1", "ready").await;
    drop(vmm);
    guest.memory().slow = u32::MAX;
    let _vmm = guest.start(daemon.sockets(), "web-1");
    let vm = daemon.until("/vms/web-1", is_restore_failed).await;
    let message = vm.json["reason"]["message"].as_str().unwrap();
    assert!(
        message.contains("its restore steps run; they have not ended within 0.3 s"),
        "{message}"
    );
    assert_eq!(vm.json["restore"]["state"], "running");
    // A client does not wait for them either.
    let report = daemon.post("/vms/web-1/restored", json!({})).await;
    assert_eq!((report.status, &report.json["state"]), (200, &json!("running")), "{report:?}");
    guest.memory().slow = 0;
    until_generation(&daemon, "web-1", 1).await;
    assert_eq!(guest.memory().generation, 1);
}

/// The generator of the process is seeded once. If the host was restored since, its later numbers repeat.
#[tokio::test]
async fn the_random_numbers_for_a_guest_come_from_the_kernel_at_each_restore() {
    let shim = tempfile::tempdir().unwrap();
    let library = shim.path().join("host_random.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/faults/host_random.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    assert!(compile.status().unwrap().success());
    let daemon = Minionsd::builder().env("LD_PRELOAD", library.to_str().unwrap()).spawn();
    let guest = ScriptedGuest::booted("first");
    let vmm = guest.start(daemon.dir(), "web-1");
    daemon.until("/vms/web-1", |vm| vm.json["state"] == "ready").await;
    drop(vmm);
    let _vmm = guest.start(daemon.dir(), "web-1");
    let is_next = |vm: &Reply| vm.json["state"] == "ready" && vm.json["agent"]["generation"] == 1;
    let vm = daemon.until("/vms/web-1", is_next).await;
    let entropy = guest.memory().restores[0]["entropy"].clone();
    assert_eq!(entropy, json!(STANDARD.encode([b'Z'; 64])));
    assert_eq!(instance(&vm), "5a5a5a5a-5a5a-4a5a-9a5a-5a5a5a5a5a5a");
}
