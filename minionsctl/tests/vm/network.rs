//! Network changes on a real VM, over REST, the wire and a real kernel. QEMU is the gateway of each of the guest's
//! networks.

use crate::boot::boot;
use crate::shared::command::{Ran, ctl};
use serde_json::{Value, json};
use testkit::daemon::{Reply, TestDaemon};
use testkit::rig::{Vm, VmConfig};
use testkit::wait::until_async;

const VM: &str = "net-test-vm";

/// Script that prints everything that a change may affect, without the packet counters of the links.
const STATE: &str = "ip addr; ip -4 route show table all; ip -6 route show table all | sort; \
    hostname; cat /proc/sys/net/ipv6/conf/eth*/accept_ra; stat -c '%A %u:%g %F' /etc/resolv.conf; cat /etc/resolv.conf";

struct Guest {
    // Dropped first.
    vm: Vm,
    daemon: TestDaemon,
}

impl Guest {
    async fn boot(nics: u8) -> Self {
        let daemon = TestDaemon::start().await;
        let vm = boot(VmConfig { nics, ..VmConfig::new(VM, daemon.sockets()) });
        daemon.until_state(VM, "ready").await;
        Self { vm, daemon }
    }

    async fn put(&self, body: Value) -> Reply {
        self.daemon.put(&format!("/vms/{VM}/network"), body).await
    }

    async fn network(&self) -> Value {
        let read = self.daemon.get(&format!("/vms/{VM}/network")).await;
        assert_eq!(read.status, 200, "{read:?}");
        read.json
    }

    async fn printed(&self, script: &str) -> String {
        let ran = self.daemon.exec(VM, "sh", &["-c", script]).await;
        assert_eq!(ran.json["exit_code"], 0, "{ran:?}");
        ran.json["stdout"].as_str().unwrap().to_owned()
    }

    /// Boots a guest, configures a working network with a route and an MTU, and returns its [`STATE`].
    async fn with_a_good_network(nics: u8) -> (Self, String) {
        let guest = Self::boot(nics).await;
        let good = json!({
            "interfaces": [{ "addresses": ["10.0.2.15/24", "10.0.2.16/24", "fec0::15/64"],
                             "gateways": ["10.0.2.2", "fec0::2"], "mtu": 1400 }],
            "routes": [{ "to": "10.77.0.0/16", "via": "10.0.2.2", "metric": 7 }],
            "dns": ["10.0.2.3"], "search": ["before.example"], "hostname": "before",
        });
        let put = guest.put(good).await;
        assert_eq!(put.status, 200, "{put:?}");
        let ping = "ping -c 1 -W 5 10.0.2.2 && ping -6 -c 1 -W 5 fec0::2";
        guest.printed(ping).await;
        let checked = async || !guest.printed("ip -6 addr").await.contains("tentative");
        until_async("the kernel has checked the addresses for duplicates", checked).await;
        let before = guest.printed(STATE).await;
        (guest, before)
    }

    /// Waits until the state is `before` again. The kernel first checks restored addresses for duplicates.
    async fn is_again(&self, before: &str) {
        until_async(&format!("the network is again:\n{before}"), async || {
            let now = self.printed(STATE).await;
            if now == before { Ok(()) } else { Err(now) }
        })
        .await;
    }

    #[track_caller]
    fn ctl(&self, args: &[&str]) -> Ran {
        Ran::of(&mut ctl(&self.daemon.host(), args))
    }
}

/// Returns a request for another network, whose gateway does not exist.
fn wrong() -> Value {
    json!({
        "interfaces": [{ "addresses": ["10.0.2.99/24", "2001:db8::99/64"],
                         "gateways": ["10.0.2.77"], "mtu": 1300 }],
        "routes": [],
        "dns": ["10.0.2.3", "9.9.9.9"], "search": ["after.example"], "hostname": "after",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_gateway_is_detected_and_the_old_network_is_restored() {
    let (guest, before) = Guest::with_a_good_network(1).await;
    let put = guest.put(wrong()).await;
    put.assert_problem(502, "network_failed");
    assert_eq!(put.json["step"], "verify_gateway", "{put:?}");
    assert_eq!(
        (&put.json["restored"], &put.json["may_have_executed"]),
        (&json!(true), &json!(false))
    );
    guest.is_again(&before).await;
    guest.printed("ping -c 1 -W 5 10.0.2.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_change_is_undone_and_a_confirmed_one_stays() {
    let (guest, before) = Guest::with_a_good_network(1).await;
    let mut change = wrong();
    change["verify"] = json!([]);
    change["confirm_within_ms"] = json!(3000);
    let put = guest.put(change.clone()).await;
    assert_eq!(put.status, 200, "{put:?}");
    let id = put.json["pending"]["id"].as_str().unwrap().to_owned();
    assert_eq!(guest.network().await["hostname"], "after");
    guest.is_again(&before).await;
    let path = format!("/vms/{VM}/network/confirm");
    let late = guest.daemon.post(&path, json!({ "id": id })).await;
    late.assert_problem(410, "network_change_gone");
    // A confirmed change stays.
    change["confirm_within_ms"] = json!(60_000);
    let put = guest.put(change).await;
    let id = put.json["pending"]["id"].as_str().unwrap().to_owned();
    guest.put(wrong()).await.assert_problem(409, "network_pending");
    guest.ctl(&["confirm-network", VM, &id]).assert(0, "", "");
    let network = guest.network().await;
    assert_eq!((&network["hostname"], &network["pending"]), (&json!("after"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_before_the_confirmation_the_next_agent_undoes_the_change() {
    let (guest, before) = Guest::with_a_good_network(1).await;
    let mut change = wrong();
    change["verify"] = json!([]);
    change["confirm_within_ms"] = json!(10_000);
    assert_eq!(guest.put(change).await.status, 200);
    let instance = || async { guest.daemon.get(&format!("/vms/{VM}")).await.json["agent"].clone() };
    let first = instance().await;
    // The guest's first process starts the agent again.
    guest.daemon.exec(VM, "sh", &["-c", "kill -9 $(pidof minions-agent)"]).await;
    until_async("the agent is started again", async || {
        let started = instance().await["instance_id"] != first["instance_id"];
        if started { Ok(()) } else { Err(guest.vm.serial_log()) }
    })
    .await;
    guest.daemon.until_state(VM, "ready").await;
    guest.is_again(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_interfaces_with_ipv4_ipv6_mtu_and_routes_are_read_back_as_requested() {
    let guest = Guest::boot(2).await;
    let asked = json!({
        "interfaces": [
            { "name": "eth0", "addresses": ["10.0.2.15/24", "fec0::15/64"],
              "gateways": ["10.0.2.2", "fec0::2"] },
            { "mac": "52:54:00:4d:00:02", "addresses": ["10.3.0.2/24", "2001:db8:1::2/64"] },
        ],
        "routes": [
            { "to": "10.1.0.0/16", "via": "10.3.0.9", "interface": "eth1", "metric": 200 },
            { "to": "203.0.113.0/24", "via": "198.51.100.1", "interface": "eth1", "on_link": true },
            { "to": "2001:db8:7::/48", "via": "2001:db8:1::1" },
        ],
        "mtu": 1420, "dns": ["10.0.2.3"], "search": ["example.org"], "hostname": "web-1",
    });
    let put = guest.put(asked.clone()).await;
    assert_eq!((put.status, &put.json["changed"]), (200, &json!(true)), "{put:?}");
    assert_eq!(put.json["verified"], json!(["link", "addresses", "route", "gateway"]));

    let read = guest.network().await;
    for (at, name) in ["eth0", "eth1"].into_iter().enumerate() {
        let all = read["interfaces"].as_array().unwrap();
        let interface = all.iter().find(|one| one["name"] == name).unwrap();
        let addresses = interface["addresses"].as_array().unwrap().iter();
        let addresses: Vec<_> =
            addresses.filter(|one| !one.as_str().unwrap().starts_with("fe80:")).collect();
        assert_eq!(json!(addresses), asked["interfaces"][at]["addresses"], "{interface}");
        assert_eq!((&interface["mtu"], &interface["up"]), (&json!(1420), &json!(true)));
    }
    let has = |to: &str, via: &str, interface: &str, metric: u32, on_link: bool| {
        let wanted = json!({ "to": to, "via": via, "interface": interface, "metric": metric,
                             "protocol": "static", "on_link": on_link });
        assert!(read["routes"].as_array().unwrap().contains(&wanted), "{wanted} {read:#}");
    };
    has("0.0.0.0/0", "10.0.2.2", "eth0", 0, false);
    has("::/0", "fec0::2", "eth0", 1024, false);
    has("10.1.0.0/16", "10.3.0.9", "eth1", 200, false);
    has("203.0.113.0/24", "198.51.100.1", "eth1", 0, true);
    has("2001:db8:7::/48", "2001:db8:1::1", "eth1", 1024, false);
    assert_eq!(read["hostname"], "web-1");
    let dns = json!({ "owner": "resolv_conf", "servers": ["10.0.2.3"], "search": ["example.org"] });
    assert_eq!(read["dns"], dns);

    let again = guest.put(asked).await;
    assert_eq!((&again.json["changed"], &again.json["changes"]), (&json!(false), &json!([])));

    let shown = guest.ctl(&["network", VM]);
    for part in ["10.3.0.2/24", "198.51.100.1 (on link)", "52:54:00:4d:00:02", "example.org"] {
        shown.assert(0, part, "");
    }
    let changed = guest.ctl(&[
        "configure-network",
        VM,
        "--interface",
        "eth1 10.3.0.3/24 mtu 1400",
        "--route",
        "10.1.0.0/16 via 10.3.0.9 dev eth1",
        "--hostname",
        "web-2",
    ]);
    for part in ["10.3.0.3/24", "1420 -> 1400", "web-1 -> web-2", "Verified:"] {
        changed.assert(0, part, "");
    }
}
