//! Guests that refuse, hang, or answer with something else: named, and without an effect on other VMs.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wire::framed;

/// Number of VMs that hang: more than attempts at the same time.
const HANGING: usize = 70;

/// Returns a base agent that confirms every request.
fn confirms() -> Behaviour {
    let reply = r#"{"status":"ok","uptime_secs":1,"hostname":"h","message":"network configured"}"#;
    Behaviour::Replies(framed(reply))
}

/// Returns a base agent that answers health checks of the supervisor, and nothing else.
fn hangs() -> Behaviour {
    let health = framed(r#"{"status":"ok","uptime_secs":1,"hostname":"h"}"#);
    Behaviour::FirstOnly(health, Arc::new(AtomicBool::new(false)))
}

fn pool(range: &str) -> Value {
    json!({
        "pools": [{ "name": "lan", "subnet": "10.0.0.0/16", "range": range, "gateway": "10.0.0.1" }],
        "declarations": [{ "name": "*", "network": { "pool": "lan" } }],
    })
}

fn reason(vm: &testkit::daemon::Reply) -> String {
    vm.json["configuration"]["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn guests_that_hang_do_not_keep_another_guest_from_its_configuration() {
    let daemon = TestDaemon::start().await;
    let start = |name: &str, behaviour| FakeVmm::start(daemon.sockets(), name, behaviour).unwrap();
    let _hanging: Vec<_> = (0..HANGING).map(|at| start(&format!("bad-{at:02}"), hangs())).collect();
    for at in 0..HANGING {
        daemon.until_state(&format!("bad-{at:02}"), "ready").await;
    }
    daemon.post("/declarations", pool("10.0.0.2-10.0.9.255")).await;
    let _good = start("good", confirms());
    daemon.until("/vms/good", |vm| vm.json["configured"] == "applied").await;
    let hanging = daemon.get("/vms?name=bad-*").await;
    let hanging = hanging.json["vms"].as_array().unwrap();
    assert!(hanging.iter().all(|vm| vm["configured"] == "pending"), "{hanging:?}");
}

#[tokio::test]
async fn a_guest_that_refuses_or_breaks_the_protocol_is_shown_as_failed_with_the_reason() {
    let daemon = TestDaemon::start().await;
    let start = |name: &str, behaviour| FakeVmm::start(daemon.sockets(), name, behaviour).unwrap();
    let _refuses = start("refuses", Behaviour::Agent(agent().unwrap()));
    let health = r#"{"status":"ok","uptime_secs":1,"hostname":"h"}"#;
    let _lies = start("lies", Behaviour::Replies(framed(health)));
    let _old = start("old", confirms());
    daemon.post("/declarations", pool("10.0.0.2-10.0.0.9")).await;
    for (vm, words) in [("refuses", "--allow"), ("lies", "violated the protocol")] {
        let shown =
            daemon.until(&format!("/vms/{vm}"), |vm| vm.json["configured"] == "failed").await;
        assert!(reason(&shown).contains(words), "{vm}: {:?}", reason(&shown));
        assert!(shown.json["state"] == "ready" || vm == "lies", "{shown:?}");
    }
    daemon.until("/vms/old", |vm| vm.json["configured"] == "applied").await;
    // The base protocol has no MTU.
    daemon.put("/declarations/old", json!({ "network": { "pool": "lan", "mtu": 1400 } })).await;
    let shown = daemon.until("/vms/old", |vm| vm.json["configured"] == "failed").await;
    assert!(reason(&shown).contains("upgrade minions-agent"), "{:?}", reason(&shown));
}

#[tokio::test]
async fn a_vm_without_a_free_address_says_so_and_gets_one_when_the_pool_grows() {
    let daemon = TestDaemon::start().await;
    let start = |name: &str| FakeVmm::start(daemon.sockets(), name, confirms()).unwrap();
    let _vms = ["a", "b", "c"].map(start);
    daemon.post("/declarations", pool("10.0.0.2-10.0.0.3")).await;
    let count = |list: &Value, configured: &str| {
        let vms = list["vms"].as_array().unwrap();
        vms.iter().filter(|vm| vm["configured"] == configured).count()
    };
    let list = daemon
        .until("/vms", |list| count(&list.json, "applied") == 2 && count(&list.json, "failed") == 1)
        .await;
    let failed = list.json["vms"].as_array().unwrap();
    let failed = failed.iter().find(|vm| vm["configured"] == "failed").unwrap();
    let reason = failed["configuration"]["reason"].as_str().unwrap();
    assert!(reason.contains("\"lan\" has no free address"), "{reason}");
    daemon.post("/declarations", pool("10.0.0.2-10.0.0.4")).await;
    daemon.until("/vms", |list| count(&list.json, "applied") == 3).await;
    let leases = daemon.get("/pools/lan/leases").await.json;
    assert_eq!(leases["leases"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn two_vms_that_match_one_static_address_do_not_both_get_it() {
    let daemon = TestDaemon::start().await;
    let start = |name: &str| FakeVmm::start(daemon.sockets(), name, confirms()).unwrap();
    let _first = start("twin-1");
    let network = json!({ "network": { "ip": "10.0.0.5/24", "gateway": "10.0.0.1" } });
    daemon.put("/declarations/twin-%2A", network).await;
    daemon.until("/vms/twin-1", |vm| vm.json["configured"] == "applied").await;
    let _second = start("twin-2");
    let shown = daemon.until("/vms/twin-2", |vm| vm.json["configured"] == "failed").await;
    assert!(reason(&shown).contains("10.0.0.5 belongs to twin-1"), "{:?}", reason(&shown));
    assert_eq!(daemon.get("/vms/twin-1").await.json["configured"], "applied");
}
