//! Circuit breaker: after three failed calls in a row, further ones fail at once until a probe is answered.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wire::framed;

/// Returns a VM whose supervisor gets answers on its connection, but no other client does.
fn two_faced() -> Behaviour {
    let health = framed(r#"{"status":"ok","uptime_secs":1,"hostname":"h"}"#);
    Behaviour::FirstOnly(health, Arc::new(AtomicBool::new(false)))
}

#[tokio::test]
async fn after_three_failed_calls_further_ones_fail_at_once_until_a_probe_is_answered() {
    let daemon = TestDaemon::start().await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", two_faced()).unwrap();
    daemon.until_state("web-1", "ready").await;
    for _ in 0..3 {
        let call = daemon.get("/vms/web-1/status?timeout_ms=200").await;
        call.assert_problem(504, "agent_timeout");
    }
    let open = daemon.until_state("web-1", "unreachable").await;
    assert_eq!(open.json["cause"], "calls_failed");
    let dialled = vm.accepted();
    let call = daemon.get("/vms/web-1/status").await;
    call.assert_problem(503, "agent_unreachable");
    assert!(call.headers.contains_key("retry-after"));
    assert_eq!(call.json["may_have_executed"], false);
    // The default timeout of 5 s was not used up. New dials are probes.
    let after = daemon.get("/vms/web-1").await;
    assert_eq!(after.json["state"], "unreachable");
    assert!(vm.accepted() <= dialled + 3, "{} dials", vm.accepted() - dialled);
    vm.switch_to(Behaviour::Agent(agent().unwrap()));
    let closed = daemon.until_state("web-1", "ready").await;
    assert_eq!(closed.json["cause"], "answered");
    assert!(closed.json["last_error"]["message"].is_string());
    assert_eq!(daemon.get("/vms/web-1/status").await.status, 200);
}

#[tokio::test]
async fn a_call_with_a_short_deadline_does_not_count_as_a_failure_of_the_vm() {
    let daemon = TestDaemon::start().await;
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", two_faced()).unwrap();
    let before = daemon.until_state("web-1", "ready").await;
    for _ in 0..6 {
        daemon.get("/vms/web-1/status?timeout_ms=20").await.assert_problem(504, "agent_timeout");
    }
    let attempts = before.json["attempts"].as_u64();
    // After the next probe, the failures would have had an effect.
    let after = daemon.until("/vms/web-1", |vm| vm.json["attempts"].as_u64() > attempts).await;
    assert_eq!(
        (&after.json["state"], &after.json["since"]),
        (&before.json["state"], &before.json["since"])
    );
}

#[tokio::test]
async fn an_answer_between_failures_resets_the_count() {
    let daemon = TestDaemon::start().await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", two_faced()).unwrap();
    let before = daemon.until_state("web-1", "ready").await;
    for _ in 0..2 {
        daemon.get("/vms/web-1/status?timeout_ms=200").await.assert_problem(504, "agent_timeout");
    }
    vm.switch_to(Behaviour::Agent(agent().unwrap()));
    daemon.until("/vms/web-1/status", |status| status.status == 200).await;
    let after = daemon.get("/vms/web-1").await;
    assert_ne!(after.json["cause"], "calls_failed", "{before:?} {after:?}");
}
