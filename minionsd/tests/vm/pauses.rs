//! The guest is paused by its VMM (`stop`), and continues.

use crate::host::{Host, VM};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Once for as long as a snapshot takes, once for longer than the daemon needs to call a VM unreachable.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(20),
    Duration::from_millis(2500),
    Duration::from_secs(8),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_guest_is_ready_again_when_it_continues_and_was_not_dialled_meanwhile() {
    let mut host = Host::start().await;
    let before = host.agent().await;
    for pause in PAUSES {
        host.vm.stop().unwrap();
        let end = Instant::now() + pause;
        let silent = |vm: &Value| vm["reason"]["failure"] == "agent_silent";
        // A call makes the daemon ask; without idle connections it waits for that answer, and does not dial.
        let asked = host.get(&format!("/vms/{VM}/status?timeout_ms=300")).await;
        assert!(matches!(asked.status, 503 | 504), "{asked:?}");
        host.until(&format!("/vms/{VM}"), |vm| silent(&vm.json)).await;
        if pause > Duration::from_secs(5) {
            let seen =
                host.until(&format!("/vms/{VM}"), |vm| vm.json["state"] == "unreachable").await;
            assert!(silent(&seen.json), "{seen:?}");
            host.get(&format!("/vms/{VM}/health")).await.assert_problem(503, "agent_unreachable");
        }
        // The fault itself, not a wait for something to come about.
        sleep_until(end).await;
        host.vm.cont().unwrap();
        let continued = Instant::now();
        let well = |vm: &Value| vm["state"] == "ready" && vm.get("reason").is_none();
        host.until(&format!("/vms/{VM}"), |vm| well(&vm.json)).await;
        println!("paused for {pause:?}: ready {:?} after it continued", continued.elapsed());
        assert_eq!(host.agent().await, before, "neither guest nor agent was restarted");
        assert_eq!(host.prints("echo back").await, "back");
    }
    assert_eq!(host.daemon.ended(), None);
}
