//! Guests that get their addresses from declarations, by themselves.

use super::bridge::{Bridge, Guest};
use serde_json::{Value, json};
use std::path::Path;
use testkit::daemon::{Reply, TestDaemon, read};
use testkit::minionsd::Minionsd;
use testkit::wait::until_async;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn declared() -> Value {
    json!({
        "pools": [{
            "name": "lan", "subnet": "10.0.0.0/24", "range": "10.0.0.2-10.0.0.99",
            "gateway": "10.0.0.1", "dns": ["10.0.0.1"], "mtu": 1400,
        }],
        "declarations": [
            { "name": "*", "labels": { "app": "web" }, "hostname": "vm-{vm}", "network": { "pool": "lan" } },
        ],
    })
}

fn start(dir: &Path) -> Minionsd {
    Minionsd::builder().dir(dir).arg("--state").arg(dir.join("minionsd.db")).start()
}

async fn post(daemon: &Minionsd, path: &str, body: &Value) -> Reply {
    read(daemon.http().post(format!("http://d{path}")).json(body).send().await.unwrap()).await
}

async fn all_applied(daemon: &Minionsd) {
    for name in NAMES {
        daemon.until(&format!("/vms/{name}"), |vm| vm.json["configured"] == "applied").await;
    }
}

fn addresses(guests: &[Guest]) -> Vec<String> {
    guests.iter().map(|guest| guest.address().unwrap()).collect()
}

fn all_reach_each_other(guests: &[Guest]) {
    for guest in guests {
        for address in addresses(guests) {
            let (address, _) = address.split_once('/').unwrap();
            assert!(guest.reaches(address), "{address}");
        }
    }
}

#[tokio::test]
async fn guests_on_a_bridge_get_addresses_and_keep_them_over_restarts_of_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = Bridge::start();
    let run = |name: &&str| Guest::start(&bridge, dir.path(), name);
    let mut daemon = start(dir.path());
    let mut guests: Vec<_> = NAMES.iter().map(run).collect();
    for name in NAMES {
        daemon.until(&format!("/vms/{name}"), |vm| vm.json["state"] == "ready").await;
    }
    assert_eq!(guests[0].address(), None, "nothing is declared yet");
    let report = post(&daemon, "/declarations", &declared()).await;
    assert_eq!((report.status, &report.json["changed"]), (200, &json!(true)), "{report:?}");
    assert_eq!(report.json["vms"], json!(NAMES));
    all_applied(&daemon).await;
    let first = addresses(&guests);
    let mut sorted = first.clone();
    sorted.sort();
    assert_eq!(sorted, ["10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24"]);
    all_reach_each_other(&guests);
    assert_eq!(guests[1].run("hostname").as_deref(), Some("vm-b\n"));
    assert!(guests[1].run("ip link show eth0").unwrap().contains("mtu 1400"));
    assert!(guests[1].run("cat /etc/resolv.conf").unwrap().contains("nameserver 10.0.0.1"));

    // The guests are lost with their networks, and start again.
    guests.clear();
    guests = NAMES.iter().map(run).collect();
    until_async("guests have their addresses again", async || {
        let now: Vec<_> = guests.iter().filter_map(Guest::address).collect();
        if now == first { Ok(()) } else { Err(now) }
    })
    .await;
    // The daemon is killed, and starts again.
    daemon.end(rustix::process::Signal::KILL);
    let mut daemon = start(dir.path());
    all_applied(&daemon).await;
    assert_eq!(addresses(&guests), first);
    // Both at once.
    daemon.end(rustix::process::Signal::KILL);
    guests.clear();
    guests = NAMES.iter().rev().map(run).collect();
    guests.reverse();
    let daemon = start(dir.path());
    all_applied(&daemon).await;
    assert_eq!(addresses(&guests), first);
    all_reach_each_other(&guests);
    let again = post(&daemon, "/declarations", &declared()).await;
    assert_eq!(
        (&again.json["changed"], &again.json["vms"]),
        (&json!(false), &json!([])),
        "{again:?}"
    );
    let metrics = daemon.http().get("http://d/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("minions_vms_configured{configured=\"applied\"} 3\n"), "{metrics}");
}

/// Starts a daemon and one guest, whose declaration has been applied.
async fn with_guest(drift: &str) -> (TestDaemon, Bridge, Guest) {
    let daemon = TestDaemon::start().await;
    let bridge = Bridge::start();
    let guest = Guest::start(&bridge, daemon.sockets(), "a");
    let mut request = declared();
    request["declarations"][0]["drift"] = json!(drift);
    assert_eq!(daemon.post("/declarations", request).await.status, 200);
    daemon.until("/vms/a", |vm| vm.json["configured"] == "applied").await;
    (daemon, bridge, guest)
}

#[tokio::test]
async fn a_change_by_hand_needs_an_override_and_is_drift_afterwards() {
    let (daemon, _bridge, guest) = with_guest("report").await;
    let other = json!({ "interfaces": [{ "addresses": ["10.0.0.200/24"] }], "verify": [] });
    daemon.put("/vms/a/network", other.clone()).await.assert_problem(409, "vm_declared");
    assert_eq!(guest.address().as_deref(), Some("10.0.0.2/24"));
    let dry = json!({ "interfaces": [{ "addresses": ["10.0.0.200/24"] }], "dry_run": true });
    assert_eq!(daemon.put("/vms/a/network", dry).await.status, 200);
    assert_eq!(daemon.put("/vms/a/network?override=true", other).await.status, 200);
    assert_eq!(guest.address().as_deref(), Some("10.0.0.200/24"));
    let vm = daemon.until("/vms/a", |vm| vm.json["configured"] == "drifted").await;
    let reason = vm.json["configuration"]["reason"].as_str().unwrap();
    assert!(reason.contains("10.0.0.2/24") && reason.contains("10.0.0.200/24"), "{reason}");
    let applied = daemon.post("/vms/a/config/apply", json!({})).await;
    assert_eq!(
        (applied.status, &applied.json["configured"]),
        (200, &json!("applied")),
        "{applied:?}"
    );
    assert_eq!(guest.address().as_deref(), Some("10.0.0.2/24"));
}

#[tokio::test]
async fn drift_is_repaired_where_the_declaration_says_so() {
    let (daemon, _bridge, guest) = with_guest("repair").await;
    let mut events = daemon.http.get(daemon.url("/events?vm=a")).send().await.unwrap();
    let other = json!({ "interfaces": [{ "addresses": ["10.0.0.200/24"] }], "verify": [] });
    assert_eq!(daemon.put("/vms/a/network?override=true", other).await.status, 200);
    let mut seen = String::new();
    while !(seen.contains("\"configured\":\"drifted\"")
        && seen.contains("\"configured\":\"applied\""))
    {
        seen += &String::from_utf8_lossy(&events.chunk().await.unwrap().unwrap());
    }
    assert!(
        seen.contains("event: vm.configured") || seen.contains("event:vm.configured"),
        "{seen}"
    );
    assert_eq!(guest.address().as_deref(), Some("10.0.0.2/24"));
}

#[tokio::test]
async fn a_changed_declaration_moves_the_guest_and_frees_its_old_address() {
    let (daemon, _bridge, guest) = with_guest("report").await;
    let own = json!({ "network": { "ip": "10.0.0.77/24", "gateway": "10.0.0.1" } });
    let stored = daemon.put("/declarations/a", own).await;
    assert_eq!(
        (stored.status, &stored.headers["etag"]),
        (200, &"\"2\"".parse().unwrap()),
        "{stored:?}"
    );
    daemon
        .until("/vms/a", |vm| {
            vm.json["configured"] == "applied" && vm.json["configuration"]["generation"] == 2
        })
        .await;
    assert_eq!(guest.address().as_deref(), Some("10.0.0.77/24"));
    let config = daemon.get("/vms/a/config").await;
    assert_eq!(config.json["declarations"], json!(["a", "*"]));
    let origins = config.json["origins"].to_string();
    assert!(origins.contains(r#"{"field":"network.ip","from":"a"}"#), "{origins}");
    // The old address is no longer in use, the new one is.
    let release = |address: &str| {
        let path = format!("/pools/lan/leases/{address}");
        let request = daemon.request(reqwest::Method::DELETE, &path);
        async move { read(request.send().await.unwrap()).await }
    };
    release("10.0.0.77").await.assert_problem(409, "address_conflict");
    assert_eq!(release("10.0.0.2").await.status, 200);
    release("10.0.0.2").await.assert_problem(404, "lease_not_found");
}

#[tokio::test]
async fn an_address_that_another_host_has_is_put_aside_and_the_vm_gets_another_one() {
    let (daemon, bridge) = (TestDaemon::start().await, Bridge::start());
    bridge.add_address("10.0.0.2/24");
    let guest = Guest::start(&bridge, daemon.sockets(), "a");
    daemon.until_state("a", "ready").await;
    // A port of a bridge forwards only some time after its interface is up.
    guest.run("ip link set eth0 up").unwrap();
    bridge.until_forwarding(1);
    assert_eq!(daemon.post("/declarations", declared()).await.status, 200);
    daemon.until("/vms/a", |vm| vm.json["configured"] == "applied").await;
    assert_eq!(guest.address().as_deref(), Some("10.0.0.3/24"));
    let leases = daemon.get("/pools/lan/leases").await.json;
    let shown: Vec<_> = leases["leases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lease| [&lease["address"], &lease["kind"], &lease["vm"]])
        .collect();
    let expected = [
        [&json!("10.0.0.2"), &json!("duplicate"), &json!("a")],
        [&json!("10.0.0.3"), &json!("pool"), &json!("a")],
    ];
    assert_eq!(shown, expected, "{leases}");
    // An address that a declaration names is not replaced.
    let fixed = json!({ "network": { "ip": "10.0.0.1/24" } });
    daemon.put("/pools/lan", json!({ "subnet": "10.0.0.0/24" })).await;
    assert_eq!(daemon.put("/declarations/a", fixed).await.status, 200);
    let vm = daemon.until("/vms/a", |vm| vm.json["configured"] == "failed").await;
    let reason = vm.json["configuration"]["reason"].as_str().unwrap();
    assert!(reason.contains("10.0.0.1 is already in use by another host"), "{reason}");
}

#[tokio::test]
async fn a_reserved_address_is_applied_at_once_and_is_not_drift() {
    let (daemon, _bridge, guest) = with_guest("report").await;
    let mut events = daemon.http.get(daemon.url("/events?vm=a")).send().await.unwrap();
    let reserved =
        daemon.post("/pools/lan/leases", json!({ "vm": "a", "address": "10.0.0.50" })).await;
    assert_eq!(reserved.status, 200, "{reserved:?}");
    let mut seen = String::new();
    while !seen.contains("\"configured\":\"applied\"") {
        seen += &String::from_utf8_lossy(&events.chunk().await.unwrap().unwrap());
    }
    assert!(seen.contains("\"configured\":\"pending\""), "{seen}");
    assert!(!seen.contains("drifted"), "{seen}");
    assert_eq!(guest.address().as_deref(), Some("10.0.0.50/24"));
    let old = reqwest::Method::DELETE;
    let released = daemon.request(old, "/pools/lan/leases/10.0.0.2").send().await.unwrap();
    assert_eq!(released.status(), 200, "the guest no longer has it");
}

#[tokio::test]
async fn a_changed_pool_is_an_event_for_each_result_and_not_for_each_beginning() {
    let (daemon, _bridge, _guest) = with_guest("report").await;
    let mut events = daemon.http.get(daemon.url("/events?vm=a")).send().await.unwrap();
    let mut request = declared();
    request["pools"][0]["mtu"] = json!(1390);
    assert_eq!(daemon.post("/declarations", request).await.json["vms"], json!(["a"]));
    let mut seen = String::new();
    while !seen.contains("\"configured\":\"applied\"") {
        seen += &String::from_utf8_lossy(&events.chunk().await.unwrap().unwrap());
    }
    assert!(!seen.contains("\"configured\":\"pending\""), "{seen}");
}

#[tokio::test]
async fn a_change_within_the_guest_is_noticed_without_waiting_for_the_next_look() {
    let (daemon, _bridge, guest) = with_guest("report").await;
    guest.run("ip addr add 10.0.0.200/24 dev eth0").unwrap();
    // Looks are a minute apart; the deadline of a test is shorter.
    let vm = daemon.until("/vms/a", |vm| vm.json["configured"] == "drifted").await;
    let reason = vm.json["configuration"]["reason"].as_str().unwrap();
    assert!(reason.contains("10.0.0.200/24"), "{reason}");
}
