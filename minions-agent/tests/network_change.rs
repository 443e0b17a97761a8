//! The second version of the network configuration, on a real kernel: in namespaces of the agent's own,
//! with a neighbour behind a veth that is the gateway.
//!
//! ```text
//!  agent │ eth0 ◀─ veth ─▶ peer0 │ neighbour: 10.0.0.1, 2001:db8::1
//!        │ eth1 ◀─ veth ─▶ peer1 │
//! ```
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{
    ChangeNetwork, Check, ConfigureNetwork, NetworkChanged, NetworkConfirm, ReadNetwork,
};
use minions_proto::{AgentError, ErrorCode};
use serde_json::{Value, json};
use std::process::Command;
use support::{RunningAgent, until};

const RUN: &str = "/run/minions-agent/network.json";

struct Guest {
    agent: RunningAgent,
}

impl Guest {
    /// The neighbour has a network namespace of its own, so that it is really asked.
    async fn start() -> Self {
        let script = "set -e
            mount --make-rprivate /
            mount -t tmpfs tmpfs /etc
            mount -t tmpfs tmpfs /run
            mkdir /run/netns
            ip link set lo up
            unshare --net sh -c 'touch /run/netns/peer; mount --bind /proc/self/ns/net /run/netns/peer'
            ip link add name eth0 index 2 address 52:54:00:00:00:01 type veth \
                peer name peer0 netns peer
            ip link add name eth1 index 3 address 52:54:00:00:00:02 type veth \
                peer name peer1 netns peer
            nsenter --net=/run/netns/peer sh -ec '
                ip link set lo up; ip link set peer0 up; ip link set peer1 up
                ip addr add 10.0.0.1/16 dev peer0; ip addr add 10.0.0.66/16 dev peer0
                ip addr add 2001:db8::1/64 dev peer0 nodad
                ip addr add 2001:db8::66/64 dev peer0 nodad'
            printf 'nameserver 9.9.9.9\\noptions edns0\\n' > /etc/resolv.conf
            chmod 640 /etc/resolv.conf
            exec \"$0\" --log-level error --listen \"$1\"";
        let agent = RunningAgent::with(|listen| {
            let mut command = Command::new("unshare");
            command.args(["--net", "--mount", "--uts", "--", "sh", "-c", script]);
            command.args([support::BINARY, listen]);
            command
        })
        .await;
        Self { agent }
    }

    fn sh(&self, script: &str) -> String {
        let output = Command::new("nsenter")
            .args(["--net", "--mount", "--uts", "-t", &self.agent.pid().to_string(), "--"])
            .args(["sh", "-ec", script])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything that a change may touch, as its tools print it. Lifetimes run on, so that those of
    /// addresses that end are cut.
    fn state(&self) -> String {
        // A queue comes with the first time that an interface is up, and stays.
        self.sh("ip -d addr show dev eth0; ip -d addr show dev eth1
            ip -d -4 route show table all; ip -d -6 route show table all
            cat /proc/sys/net/ipv6/conf/eth*/accept_ra; hostname
            stat -c '%A %u:%g %F' /etc/resolv.conf; cat /etc/resolv.conf
            ls -A /etc /run/systemd 2>/dev/null || true")
            .lines()
            .map(|line| match (line.contains("forever"), line.find("valid_lft")) {
                (false, Some(at)) => &line[..at],
                _ => line,
            })
            .map(|line| match line.find(" qdisc ") {
                Some(at) if line.contains("UP") || line.contains("DOWN") => &line[..at],
                _ => line,
            })
            .map(|line| match line.find(" expires ") {
                Some(at) => &line[..at],
                None => line,
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Once both interfaces are up and the kernel has added what it adds by itself.
    async fn settled(&self) -> String {
        until("the link-local addresses are there", async || {
            let all = self.sh("ip -6 -o addr show scope link");
            (all.lines().count() == 2 && !all.contains("tentative")).then_some(())
        })
        .await;
        self.state()
    }

    async fn change(&self, change: Value) -> Result<NetworkChanged, AgentError> {
        let change: ChangeNetwork = serde_json::from_value(change).unwrap();
        self.agent.call(&change).await
    }

    /// A network that is no trivial one to put back.
    async fn with_history() -> (Self, String) {
        let guest = Self::start().await;
        guest.sh("hostname before
            ip link set eth0 up; ip link set eth1 up mtu 1400
            ip addr add 192.168.7.7/24 brd + label eth0:old dev eth0
            ip addr add 192.168.7.8/24 dev eth0; ip addr add 192.168.7.9/24 dev eth0
            ip addr add 172.20.0.2 peer 172.20.0.9/32 dev eth0
            ip addr add 10.99.0.1/24 metric 77 noprefixroute dev eth0
            ip addr add 192.168.8.8/24 valid_lft 900 preferred_lft 800 dev eth0
            ip addr add 2001:db8:9::9/64 nodad dev eth0
            ip addr add 2001:db8:9::8/64 dev eth0
            ip addr add 2001:db8:8::8/64 valid_lft 900 preferred_lft 800 dev eth0
            ip route add default via 192.168.7.1 metric 50 proto dhcp src 192.168.7.8
            ip route add default nexthop via 192.168.7.1 weight 3 nexthop via 192.168.7.2
            ip route add 10.5.0.0/16 via 192.168.7.3 mtu 1300 advmss 1200
            ip route add 10.6.0.0/16 via 10.66.0.1 dev eth0 onlink
            ip route add 10.7.0.0/16 via 192.168.7.4 table 100
            ip route add unreachable 10.8.0.0/16; ip route add 10.9.0.0/16 dev eth1 metric 5
            ip -6 route add default via fe80::7 dev eth0 proto ra metric 100 expires 600
            ip -6 route add default via 2001:db8:9::1 metric 50 pref high
            ip -6 route append default via 2001:db8:9::2 metric 50
            ip -6 route add 2001:db8:5::/48 via 2001:db8:9::3 table 100
            echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra");
        until("no address is tentative", async || {
            (!guest.sh("ip -6 addr").contains("tentative")).then_some(())
        })
        .await;
        let before = guest.settled().await;
        (guest, before)
    }

    /// As soon as it is so: the kernel looks for duplicates of what was put back.
    async fn is_again(&self, before: &str) {
        let deadline = std::time::Instant::now() + support::SOON;
        loop {
            let now = self.state();
            if now == before {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "before:\n{before}\n\nnow:\n{now}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    fn journal(&self) -> String {
        self.sh(&format!("ls {RUN} 2>/dev/null || true"))
    }
}

fn both() -> Value {
    json!({
        "interfaces": [
            { "name": "eth0", "addresses": ["10.0.0.2/16", "10.0.0.3/16", "2001:db8::2/64"],
              "gateways": ["10.0.0.1", "2001:db8::1"], "mtu": 1420 },
            { "mac": "52:54:00:00:00:02", "addresses": ["10.1.0.2/24", "2001:db8:1::2/64"] },
        ],
        "routes": [
            { "to": "172.16.0.0/12", "via": "10.0.0.1" },
            { "to": "172.16.0.0/12", "via": "10.1.0.1", "metric": 200 },
            { "to": "198.51.100.0/24", "via": "203.0.113.1", "interface": "eth1", "on_link": true },
            { "to": "192.0.2.0/24", "interface": "eth1" },
            { "to": "2001:db8:7::/48", "via": "2001:db8:1::1" },
            { "to": "::/0", "via": "2001:db8:1::1", "metric": 2000 },
        ],
        "dns": ["1.1.1.1", "2606:4700:4700::1111"],
        "search": ["example.org", "a.example"],
        "hostname": "web-1",
        "mtu": 1500,
    })
}

#[tokio::test]
async fn what_is_read_back_is_what_was_asked_for() {
    let guest = Guest::start().await;
    let changed = guest.change(both()).await.unwrap();
    assert_eq!((changed.message.as_str(), changed.changed), ("network configured", Some(true)));
    let checks = [Check::Link, Check::Addresses, Check::Route, Check::Gateway];
    assert_eq!(changed.verified.as_deref(), Some(&checks[..]));
    assert_eq!(changed.dns_owner.as_deref(), Some("resolv_conf"));

    let state = guest.agent.call(&ReadNetwork {}).await.unwrap();
    assert_eq!((state.hostname.as_str(), &state.pending), ("web-1", &None));
    assert_eq!(state.dns.servers, ["1.1.1.1", "2606:4700:4700::1111"]);
    assert_eq!(state.dns.search, ["example.org", "a.example"]);
    let interface = |name: &str| {
        let found = state.interfaces.iter().find(|one| one.name == name).unwrap();
        let addresses = found.addresses.iter().filter(|one| !one.starts_with("fe80:"));
        (found.mtu, addresses.cloned().collect::<Vec<_>>())
    };
    let all = |addresses: &[&str]| addresses.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
    assert_eq!(interface("eth0"), (1420, all(&["10.0.0.2/16", "10.0.0.3/16", "2001:db8::2/64"])));
    assert_eq!(interface("eth1"), (1500, all(&["10.1.0.2/24", "2001:db8:1::2/64"])));
    let mut routes: Vec<_> = state
        .routes
        .iter()
        .filter(|route| route.protocol == "static")
        .map(|route| {
            let (via, over) =
                (route.via.as_deref().unwrap_or("-"), route.interface.as_ref().unwrap());
            format!("{} {via} {over} {} {}", route.to, route.metric, route.on_link)
        })
        .collect();
    routes.sort();
    assert_eq!(
        routes,
        [
            "0.0.0.0/0 10.0.0.1 eth0 0 false",
            "172.16.0.0/12 10.0.0.1 eth0 0 false",
            "172.16.0.0/12 10.1.0.1 eth1 200 false",
            "192.0.2.0/24 - eth1 0 false",
            "198.51.100.0/24 203.0.113.1 eth1 0 true",
            "2001:db8:7::/48 2001:db8:1::1 eth1 1024 false",
            "::/0 2001:db8:1::1 eth1 2000 false",
            "::/0 2001:db8::1 eth0 1024 false",
        ]
    );
    assert_eq!(guest.journal(), "");
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_says_so() {
    let guest = Guest::start().await;
    guest.change(both()).await.unwrap();
    let once = guest.settled().await;
    let again = guest.change(both()).await.unwrap();
    assert_eq!((again.changed, again.changes.as_deref()), (Some(false), Some(&[][..])));
    assert_eq!(guest.state(), once);
    // The base form says it too, beside its own words.
    let base = ConfigureNetwork {
        ip: "10.0.0.2/16".into(),
        gateway: "10.0.0.1".into(),
        dns: vec!["1.1.1.1".into()],
    };
    assert_eq!(guest.agent.call(&base).await.unwrap().changed, Some(true));
    let twice = guest.agent.call(&base).await.unwrap();
    assert_eq!((twice.message.as_str(), twice.changed), ("network configured", Some(false)));
}

#[tokio::test]
async fn a_dry_run_tells_the_difference_and_makes_none() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["dry_run"] = json!(true);
    let dry = guest.change(change).await.unwrap();
    guest.is_again(&before).await;
    let real = guest.change(both()).await.unwrap();
    assert_eq!(dry.changes, real.changes);
    let changes = serde_json::to_value(real.changes.unwrap()).unwrap();
    let has = |change: Value| changes.as_array().unwrap().contains(&change);
    assert!(has(json!({ "what": "hostname", "from": "before", "to": "web-1" })), "{changes:#}");
    assert!(has(json!({ "what": "mtu", "interface": "eth0", "from": "1500", "to": "1420" })));
    assert!(has(json!({ "what": "accept_ra", "interface": "eth0", "from": "2", "to": "0" })));
    assert!(has(json!({ "what": "address", "interface": "eth0", "from": "192.168.7.7/24" })));
    assert!(has(json!({ "what": "address", "interface": "eth0", "to": "10.0.0.2/16" })));
    assert!(has(json!({ "what": "route", "interface": "eth0", "to": "0.0.0.0/0 via 10.0.0.1" })));
    assert!(has(json!({ "what": "search", "to": "example.org a.example" })));
}

#[tokio::test]
async fn whatever_fails_leaves_everything_as_it_was() {
    for (change, step) in [
        // Nobody there.
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.2/16"], "gateways": ["10.0.0.250"] }] }),
            "verify_gateway",
        ),
        (
            json!({ "interfaces": [{ "addresses": ["2001:db8::2/64"], "gateways": ["2001:db8::250"] }] }),
            "verify_gateway",
        ),
        (
            json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.250", "verify": ["gateway"] }),
            "verify_gateway",
        ),
        // The neighbour has it.
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.66/16"], "gateways": ["10.0.0.1"] }] }),
            "addresses",
        ),
        (json!({ "interfaces": [{ "addresses": ["2001:db8::66/64"] }] }), "verify_addresses"),
        // The kernel knows no way to the next hop.
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.2/16"] }],
                 "routes": [{ "to": "10.9.9.0/24", "via": "203.0.113.1", "interface": "lo" }] }),
            "routes",
        ),
        // No server there: nothing listens on the neighbour.
        (
            json!({ "interfaces": [{ "addresses": ["10.0.0.2/16"], "gateways": ["10.0.0.1"] }],
                 "dns": ["10.0.0.1"], "hostname": "after", "mtu": 1420, "verify": ["dns"] }),
            "verify_dns",
        ),
    ] {
        let (guest, before) = Guest::with_history().await;
        let error = guest.change(change.clone()).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::NetworkFailed), "{change}: {error:?}");
        assert_eq!((error.step.as_deref(), error.restored), (Some(step), Some(true)), "{error:?}");
        guest.is_again(&before).await;
        assert_eq!(guest.journal(), "", "{change}");
    }
}

#[tokio::test]
async fn a_base_request_that_fails_half_way_leaves_everything_as_it_was() {
    let (guest, _) = Guest::with_history().await;
    // A file system that can't be written to.
    guest.sh("mount -o remount,ro /etc");
    let before = guest.state();
    let base = ConfigureNetwork {
        ip: "10.0.0.2/16".into(),
        gateway: "10.0.0.1".into(),
        dns: vec!["1.1.1.1".into()],
    };
    let error = guest.agent.call(&base).await.unwrap_err();
    assert_eq!((error.step.as_deref(), error.restored), (Some("dns"), Some(true)), "{error:?}");
    guest.is_again(&before).await;
}

#[tokio::test]
async fn an_interface_that_was_down_is_down_again() {
    let guest = Guest::start().await;
    let before = guest.state();
    let change = json!({ "interfaces": [{ "addresses": ["10.0.0.2/16", "2001:db8::2/64"],
                                          "gateways": ["10.0.0.250"] }] });
    let error = guest.change(change).await.unwrap_err();
    assert_eq!(error.restored, Some(true), "{error:?}");
    guest.is_again(&before).await;
}

#[tokio::test]
async fn a_host_that_goes_silent_gets_the_old_network_back() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(1000);
    let changed = guest.change(change).await.unwrap();
    assert!(changed.pending.unwrap().expires_in_ms <= 1000);
    guest.is_again(&before).await;
    until("the journal is gone", async || guest.journal().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_change_that_is_confirmed_stays() {
    let (guest, _) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(60_000);
    let pending = guest.change(change.clone()).await.unwrap().pending.unwrap();
    // Whoever asks again has lost the reply, and gets it; anything else waits.
    let again = guest.change(change).await.unwrap();
    assert_eq!(again.pending.unwrap().id, pending.id);
    let other = guest.change(both()).await.unwrap_err();
    assert_eq!(other.code, Some(ErrorCode::NetworkPending), "{other:?}");
    let read = guest.agent.call(&ReadNetwork {}).await.unwrap();
    assert_eq!(read.pending.unwrap().id, pending.id);
    let wrong = guest.agent.call(&NetworkConfirm { id: "net-0".into() }).await.unwrap_err();
    assert_eq!(wrong.code, Some(ErrorCode::NetworkChangeGone));
    for _ in 0..2 {
        guest.agent.call(&NetworkConfirm { id: pending.id.clone() }).await.unwrap();
    }
    assert_eq!((guest.journal().as_str(), guest.sh("hostname").as_str()), ("", "web-1\n"));
    assert_eq!(guest.change(both()).await.unwrap().changed, Some(false));
}

/// A second agent in the same namespaces, after the first was killed.
async fn succeed(guest: &Guest) -> RunningAgent {
    let script = format!(
        "exec nsenter --net=/proc/{0}/ns/net --mount=/proc/{0}/ns/mnt --uts=/proc/{0}/ns/uts -- \"$0\" \
         --log-level error --listen \"$1\"",
        guest.agent.pid()
    );
    RunningAgent::with(|listen| {
        let mut command = Command::new("sh");
        command.args(["-c", &script, support::BINARY, listen]);
        command
    })
    .await
}

#[tokio::test]
async fn an_agent_that_starts_anew_goes_on_waiting_for_the_confirmation() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(8_000);
    let pending = guest.change(change).await.unwrap().pending.unwrap();
    // The first one is stopped, not gone: it keeps the namespaces.
    support::stop(guest.agent.pid());
    let next = succeed(&guest).await;
    let read = next.call(&ReadNetwork {}).await.unwrap();
    assert_eq!(read.pending.map(|pending| pending.id), Some(pending.id));
    guest.is_again(&before).await;
}

#[tokio::test]
async fn an_agent_that_starts_in_the_middle_of_a_change_puts_it_back() {
    let (guest, before) = Guest::with_history().await;
    let mut change = both();
    change["confirm_within_ms"] = json!(60_000);
    guest.change(change).await.unwrap();
    support::stop(guest.agent.pid());
    // As the journal is while steps are made.
    let text = guest.sh(&format!("cat {RUN}"));
    let mut journal: Value = serde_json::from_str(&text).unwrap();
    journal["pending"] = Value::Null;
    std::fs::write(format!("/proc/{}/root{RUN}", guest.agent.pid()), journal.to_string()).unwrap();
    let next = succeed(&guest).await;
    guest.is_again(&before).await;
    assert_eq!(next.call(&ReadNetwork {}).await.unwrap().pending, None);
    assert_eq!(guest.journal(), "");
}

#[tokio::test]
async fn a_request_that_can_not_be_names_its_field_and_touches_nothing() {
    let (guest, before) = Guest::with_history().await;
    for (change, field) in [
        (
            json!({ "interfaces": [{ "name": "eth9", "addresses": ["10.0.0.2/16"] }] }),
            "interfaces[0].name",
        ),
        (
            json!({ "interfaces": [{ "mac": "52:54:00:00:00:99", "addresses": [] }] }),
            "interfaces[0].mac",
        ),
        (
            json!({ "interfaces": [{ "name": "eth0", "mtu": 1400 }, { "mac": "52:54:00:00:00:01" }] }),
            "interfaces[1]",
        ),
        (
            json!({ "interfaces": [{ "name": "eth0", "mtu": 1400 }],
                 "routes": [{ "to": "10.9.0.0/16", "interface": "eth9" }] }),
            "routes[0].interface",
        ),
        (json!({ "interfaces": [{ "addresses": ["10.0.0.2/33"] }] }), "interfaces[0].addresses[0]"),
    ] {
        let error = guest.change(change.clone()).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{change}: {error:?}");
        assert_eq!(error.field.as_deref(), Some(field), "{change}: {error:?}");
    }
    guest.is_again(&before).await;
}
