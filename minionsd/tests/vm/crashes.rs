//! QEMU is killed, alone or together with its vsock backend, or stopped.

use crate::host::{Host, VM};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vmm_is_a_502_then_stale_and_a_new_vm_of_its_name_is_ready() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    let running = host.under_way("sleep 300").await;
    host.vm.kill();
    let lost = running.await.unwrap();
    lost.assert_problem(502, "connection_lost");
    assert_eq!(lost.json["may_have_executed"], true, "{lost:?}");
    host.until(&format!("/vms/{VM}"), |vm| vm.json["state"] == "stale").await;
    host.get(&format!("/vms/{VM}/health")).await.assert_problem(503, "agent_unreachable");
    host.boot_another();
    let after = host.until_another(&before).await;
    assert_ne!(after["boot_id"], before["boot_id"]);
    assert_eq!(host.prints("echo back").await, "back");
    assert_eq!(host.daemon.ended(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_vm_with_a_running_backend_is_unreachable_until_powered_on() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    let running = host.under_way("sleep 300").await;
    host.vm.kill_qemu().unwrap();
    running.await.unwrap().assert_problem(502, "connection_lost");
    let dead = host.until(&format!("/vms/{VM}"), |vm| vm.json["state"] == "unreachable").await;
    // The backend creates its socket again, as a VMM does at a reboot.
    assert_eq!(dead.json["reason"]["failure"], "rebooting", "{dead:?}");
    host.until(&format!("/vms/{VM}"), |vm| vm.json["reason"]["layer"] == "no_agent").await;
    host.get(&format!("/vms/{VM}/health")).await.assert_problem(503, "agent_unreachable");
    host.vm.power_on().unwrap();
    let after = host.until_another(&before).await;
    assert_ne!(after["boot_id"], before["boot_id"]);
    assert_eq!(host.prints("echo back").await, "back");
    assert_eq!(host.daemon.ended(), None);
}

/// Time for which QEMU is stopped.
const STOPPED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_stopped_for_20_s_is_unreachable_and_then_continues() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    let running = host.under_way("sleep 5; echo over").await;
    host.vm.pause().unwrap();
    let end = Instant::now() + STOPPED;
    let asked = host.get(&format!("/vms/{VM}/health?timeout_ms=300")).await;
    asked.assert_problem(504, "agent_timeout");
    host.until(&format!("/vms/{VM}"), |vm| vm.json["state"] == "unreachable").await;
    host.get(&format!("/vms/{VM}/health")).await.assert_problem(503, "agent_unreachable");
    assert_eq!(host.get("/healthz").await.status, 200);
    // This is the fault, not a wait for an effect.
    sleep_until(end).await;
    host.vm.resume().unwrap();
    host.until(&format!("/vms/{VM}"), |vm| vm.json["state"] == "ready").await;
    assert_eq!(host.agent().await, before, "neither guest nor agent was restarted");
    let ended = running.await.unwrap();
    assert_eq!((ended.status, &ended.json["stdout"]), (200, &"over\n".into()), "{ended:?}");
    assert_eq!(host.prints("echo back").await, "back");
    assert_eq!(host.daemon.ended(), None);
}
