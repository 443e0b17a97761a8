//! The guest is reset (`system_reset`), and its clients are not informed.

use crate::host::{Host, VM};
use testkit::daemon::Reply;

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_guest_is_ready_as_another_boot_and_calls_until_then_fail() {
    let mut host = Host::start().await;
    let mut announced_at = announced(&host).await;
    for _ in 0..3 {
        let before = host.agent().await;
        host.vm.reset().unwrap();
        // Calls without a pause: those to the daemon use idle connections, the daemon's probes new ones.
        let after = loop {
            let asked = host.get(&format!("/vms/{VM}/health?timeout_ms=300")).await;
            match asked.status {
                200 if asked.json["agent"]["boot_id"] != before["boot_id"] => {
                    break host.until_another(&before).await;
                }
                200 => {}
                502 => _ = asked.assert_problem(502, "connection_lost"),
                503 => _ = asked.assert_problem(503, "agent_unreachable"),
                _ => _ = asked.assert_problem(504, "agent_timeout"),
            }
        };
        assert_ne!(after["boot_id"], before["boot_id"]);
        assert_eq!(host.prints("echo back").await, "back");
        let again = announced(&host).await;
        // Times of this form have the order of their texts.
        assert!(again > announced_at, "{again}, after {announced_at}");
        announced_at = again;
    }
    assert_eq!(host.daemon.ended(), None);
}

/// Waits until the timeline of the boot has the agent's announcement, and returns its time.
async fn announced(host: &Host) -> String {
    let path = format!("/vms/{VM}");
    let vm = host.until(&path, |vm| vm.json["boot"]["announced_at"].is_string()).await;
    vm.json["boot"]["announced_at"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reset_during_a_request_is_a_504_and_the_next_call_works() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    let status = |timeout_ms: u32| format!("/vms/{VM}/status?timeout_ms={timeout_ms}");
    // Leaves an idle connection in the pool, which is silent from the reset on.
    assert_eq!(host.get(&status(5000)).await.status, 200);
    host.vm.reset().unwrap();
    let refused = loop {
        let asked = host.get(&status(300)).await;
        // The monitor only accepts the command; QEMU resets the guest in its next main loop iteration.
        if asked.status != 200 {
            break asked;
        }
    };
    refused.assert_problem(504, "agent_timeout");
    let after = host.until_another(&before).await;
    assert_ne!(after["boot_id"], before["boot_id"]);
    assert_eq!(host.get(&status(5000)).await.status, 200);
    assert_eq!(host.daemon.ended(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_lost_with_a_guest_reset_and_may_have_executed() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    let running = host.under_way("sleep 300").await;
    host.vm.reset().unwrap();
    let lost = running.await.unwrap();
    lost.assert_problem(502, "connection_lost");
    assert_eq!(lost.json["may_have_executed"], true, "{lost:?}");
    let after = host.until_another(&before).await;
    assert_ne!(after["boot_id"], before["boot_id"]);
    // The daemon's own calls to the new boot, such as that to set its clock, are counted as streams until they end.
    let is_unused = |vm: &Reply| vm.json["pool"]["in_use"] == 0 && vm.json["pool"]["streams"] == 0;
    host.until(&format!("/vms/{VM}"), is_unused).await;
    assert_eq!(host.prints("echo back").await, "back");
    assert_eq!(host.daemon.ended(), None);
}
