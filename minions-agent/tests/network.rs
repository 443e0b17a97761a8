//! The base network configuration on a real kernel; the agent runs in its own network and mount namespaces.
//!
//! ```text
//!  test process ── hybrid socket ──▶ agent │ eth0 ◀── veth ──▶ peer0 │ tmpfs on /etc
//!        └──────── nsenter ip -j ────────▶ └─────── namespaces ──────┘
//! ```
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{ConfigureNetwork, NetworkChanged};
use minions_proto::{AgentError, ErrorCode};
use serde_json::{Value, json};
use std::process::Command;
use support::{RunningAgent, until};

/// Prefix of link-local addresses, which become usable only after duplicate address detection.
const LINK_LOCAL: &str = "fe80:";

/// Lifetime of an address that does not expire.
const UNLIMITED: u32 = u32::MAX;

/// Creates the agent's end of a veth with a low index, like the only device of a VM.
const ETHERNET: &str = "ip link add name eth0 index 2 type veth peer name peer0 index 3
    ip link set peer0 up";

/// Agent in its own namespaces.
struct Guest {
    agent: RunningAgent,
}

impl Guest {
    async fn start() -> Self {
        Self::with(ETHERNET).await
    }

    /// Starts the agent through `unshare`, so that it cannot change the network of this machine.
    async fn with(setup: &str) -> Self {
        let ip = Command::new("ip").arg("-V").output();
        assert!(ip.is_ok(), "install iproute2 (cargo xtask test does)");
        let script = format!(
            "set -e
            mount --make-rprivate /
            mount -t tmpfs tmpfs /etc
            mount -t tmpfs tmpfs /run
            ip link set lo up
            {setup}
            exec \"$0\" --log-level error --listen \"$1\""
        );
        let agent = RunningAgent::with(|listen| {
            let mut command = Command::new("unshare");
            command.args(["--net", "--mount", "--", "sh", "-c", &script]);
            command.args([support::BINARY, listen]);
            command
        })
        .await;
        Self { agent }
    }

    /// Runs a shell command in the agent's namespaces.
    fn sh(&self, script: &str) -> String {
        let output = Command::new("nsenter")
            .args(["--net", "--mount", "-t", &self.agent.pid().to_string(), "--", "sh", "-ec"])
            .arg(script)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, script: &str) -> Vec<Value> {
        serde_json::from_str(&self.sh(script)).unwrap()
    }

    async fn configure(
        &self,
        ip: &str,
        gateway: &str,
        dns: &[&str],
    ) -> Result<NetworkChanged, AgentError> {
        self.agent
            .call(&ConfigureNetwork {
                ip: ip.to_owned(),
                gateway: gateway.to_owned(),
                dns: dns.iter().map(|&server| server.to_owned()).collect(),
            })
            .await
    }

    /// Calls [`configure`](Self::configure), and checks the reply and the kernel's state.
    async fn configured(&self, ip: &str, gateway: &str) {
        let done = self.configure(ip, gateway, &[]).await.unwrap();
        assert_eq!(done.message, "network configured");
        self.assert_only(ip, gateway);
    }

    /// Checks that `eth0` has only this address, apart from link-local ones, and the guest only this default route.
    fn assert_only(&self, ip: &str, gateway: &str) {
        assert_eq!(self.addresses(), [ip], "{:#?}", self.state());
        let routes: Vec<_> = self
            .default_routes()
            .iter()
            .map(|route| (route["dev"].clone(), route["gateway"].clone()))
            .collect();
        assert_eq!(routes, [(json!("eth0"), json!(gateway))], "{:#?}", self.state());
    }

    fn address_info(&self) -> Vec<Value> {
        self.json("ip -j addr show dev eth0")[0]["addr_info"].as_array().unwrap().clone()
    }

    fn addresses(&self) -> Vec<String> {
        self.address_info()
            .iter()
            .map(|info| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]))
            .filter(|address| !address.starts_with(LINK_LOCAL))
            .collect()
    }

    fn link_local(&self) -> Vec<Value> {
        let mut all = self.address_info();
        all.retain(|info| info["local"].as_str().unwrap().starts_with(LINK_LOCAL));
        all
    }

    fn default_routes(&self) -> Vec<Value> {
        let mut all = self.json("ip -4 -j route show default");
        all.extend(self.json("ip -6 -j route show default"));
        all
    }

    fn resolv_conf(&self) -> String {
        self.sh("cat /etc/resolv.conf")
    }

    /// Returns everything that a configuration may change, without entries that the kernel adds at any time:
    /// link-local and multicast entries, and the carrier.
    fn state(&self) -> Value {
        let mut ipv6 = self.json("ip -6 -j route show table all");
        ipv6.retain(|route| {
            let is_automatic = |dst: &str| dst.starts_with(LINK_LOCAL) || dst.starts_with("ff00:");
            !route["dst"].as_str().is_some_and(is_automatic)
        });
        let mut addresses = self.address_info();
        addresses.retain(|info| !info["local"].as_str().unwrap().starts_with(LINK_LOCAL));
        let flags = self.json("ip -j link show dev eth0")[0]["flags"].clone();
        json!({
            "addresses": addresses,
            "up": flags.as_array().unwrap().contains(&json!("UP")),
            "ipv4": self.json("ip -4 -j route show table all"),
            "ipv6": ipv6,
            "etc": self.sh("ls -A /etc; cat /etc/resolv.conf 2>/dev/null || true"),
        })
    }

    /// Returns the state once the kernel has added the link-local address, a little after the interface is up.
    async fn settled(&self) -> Value {
        until("the link-local address is there", async || {
            let all = self.link_local();
            all.iter().any(|info| info.get("tentative").is_none()).then_some(())
        })
        .await;
        self.state()
    }
}

#[tokio::test]
async fn the_address_the_route_and_the_resolver_are_as_requested() {
    let guest = Guest::start().await;
    let dns = ["1.1.1.1", "2606:4700:4700::1111"];
    guest.configure("10.0.0.2/16", "10.0.0.1", &dns).await.unwrap();
    guest.assert_only("10.0.0.2/16", "10.0.0.1");
    let address = &guest.address_info()[0];
    assert_eq!(address["broadcast"], "10.0.255.255");
    assert_eq!(address["scope"], "global");
    assert_eq!(address["valid_life_time"], UNLIMITED);
    assert_eq!(guest.default_routes()[0].get("metric"), None);
    let on_link = &guest.json("ip -4 -j route show 10.0.0.0/16")[0];
    assert_eq!((&on_link["dev"], &on_link["prefsrc"]), (&json!("eth0"), &json!("10.0.0.2")));
    let text = guest.resolv_conf();
    let servers: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(servers, ["nameserver 1.1.1.1", "nameserver 2606:4700:4700::1111"]);
    assert_eq!(guest.sh("stat -c %a /etc/resolv.conf; ls -A /etc"), "644\nresolv.conf\n");
}

#[tokio::test]
async fn configuration_is_idempotent() {
    for (ip, gateway) in [
        ("10.0.0.2/16", "10.0.0.1"),
        ("10.0.0.0/31", "10.0.0.1"),
        ("2001:db8::2/64", "2001:db8::1"),
        ("2001:db8::2/128", "fe80::1"),
    ] {
        let guest = Guest::start().await;
        guest.configure(ip, gateway, &["1.1.1.1"]).await.unwrap();
        let once = guest.settled().await;
        guest.configure(ip, gateway, &["1.1.1.1"]).await.unwrap();
        assert_eq!(guest.settled().await, once, "{ip}");
        guest.assert_only(ip, gateway);
    }
}

#[tokio::test]
async fn earlier_addresses_and_default_routes_are_removed() {
    for before in [
        // In the same subnet, so that one is the primary of the others.
        "ip addr add 10.0.0.3/16 dev eth0; ip addr add 10.0.0.4/16 dev eth0",
        // Including the wanted one: first, last, or with a lifetime.
        "ip addr add 10.0.0.2/16 dev eth0; ip addr add 10.0.0.4/16 dev eth0",
        "ip addr add 10.0.0.3/16 dev eth0; ip addr add 10.0.0.2/16 dev eth0",
        "ip addr add 10.0.0.2/16 valid_lft 900 preferred_lft 800 dev eth0",
        // The wanted one with a difference: another broadcast, a scope, no route to its subnet.
        "ip addr add 10.0.0.2/16 brd 10.0.0.255 dev eth0",
        "ip addr add 10.0.0.2/16 brd + scope link dev eth0",
        "ip addr add 10.0.0.2/16 brd + noprefixroute dev eth0",
        "ip addr add 10.0.0.2/16 brd + metric 77 dev eth0",
        "ip addr add 10.0.0.2 peer 10.0.0.9/16 dev eth0",
        // With another prefix length.
        "ip addr add 10.0.0.2/24 dev eth0",
        "ip addr add 10.0.0.2/8 dev eth0; ip addr add 10.0.0.2/32 dev eth0",
        // In other subnets, and of the other family.
        "ip addr add 192.168.7.7/24 dev eth0; ip addr add 2001:db8:9::9/64 dev eth0",
        "ip addr add 10.0.0.2 peer 10.9.9.9/32 dev eth0",
        // Default routes: several, with metrics, over several hops, over another interface.
        "ip addr add 10.0.0.3/16 dev eth0; ip route add default via 10.0.0.9
            ip route add default via 10.0.0.1 metric 100
            ip route add default via 10.0.0.8 metric 200",
        "ip route add blackhole default; ip route add unreachable default metric 5",
        "ip addr add 192.168.7.7/24 dev eth0
            ip route add default nexthop via 192.168.7.1 nexthop via 192.168.7.2",
        "ip addr add 10.0.0.2/16 dev eth0
            ip route add default metric 7 nexthop via 10.0.0.8 nexthop via 10.0.0.9",
        "ip addr add 10.7.7.7/24 dev peer0; ip route add default via 10.7.7.1 dev peer0 metric 5",
        "ip route add default dev eth0; ip route add default dev eth0 metric 3",
        "ip addr add 2001:db8:9::9/64 nodad dev eth0
            ip route add default via 2001:db8:9::1 metric 50
            ip route add default via 2001:db8:9::2
            ip -6 route append default via 2001:db8:9::3",
    ] {
        let guest = Guest::start().await;
        guest.sh(&format!("ip link set eth0 up; {before}"));
        guest.configured("10.0.0.2/16", "10.0.0.1").await;
        let address = &guest.address_info()[0];
        assert_eq!(address["valid_life_time"], UNLIMITED, "{before}");
        assert_eq!(address["broadcast"], "10.0.255.255", "{before}");
        assert_eq!(address["scope"], "global", "{before}");
        let on_link = guest.json("ip -4 -j route show 10.0.0.0/16 dev eth0 proto kernel");
        assert_eq!(on_link.len(), 1, "{before}: {on_link:#?}");
        assert_eq!(on_link[0].get("metric"), None, "{before}");
    }
}

#[tokio::test]
async fn earlier_ipv6_addresses_and_default_routes_are_removed() {
    for before in [
        "ip addr add 2001:db8::2/80 nodad dev eth0",
        "ip addr add 2001:db8::2/64 dev eth0",
        "ip addr add 2001:db8::2/64 noprefixroute dev eth0",
        "ip addr add 2001:db8::2 peer 2001:db8::9/64 nodad dev eth0",
        "ip addr add 2001:db8::2/64 valid_lft 900 preferred_lft 800 dev eth0",
        "ip addr add 2001:db8::3/64 nodad dev eth0; ip addr add 2001:db8::4/64 nodad dev eth0",
        "ip addr add 10.0.0.2/16 dev eth0; ip route add default via 10.0.0.1 metric 9",
        "ip addr add 2001:db8::3/64 nodad dev eth0
            ip -6 route add default via 2001:db8::1 metric 9
            ip -6 route add default via 2001:db8::7
            ip -6 route append default via 2001:db8::8",
        "ip -6 route add default proto ra via fe80::7 dev eth0 metric 100 expires 600",
        "ip -6 route add default dev eth0 metric 3",
        "ip -6 route add unreachable default metric 3; ip -6 route add blackhole default metric 4",
        "ip -6 route add default dev peer0 metric 3",
    ] {
        let guest = Guest::start().await;
        guest.sh(&format!("ip link set eth0 up; {before}"));
        guest.configured("2001:db8::2/64", "2001:db8::1").await;
        let address = &guest.address_info()[0];
        assert_eq!(address["valid_life_time"], UNLIMITED, "{before}");
        assert_eq!(address.get("address"), None, "{before}: still point to point");
        assert_eq!(guest.default_routes()[0]["metric"], 1024, "{before}");
        let on_link = guest.json("ip -6 -j route show 2001:db8::/64 dev eth0 proto kernel");
        assert_eq!(on_link.len(), 1, "{before}: {on_link:#?}");
    }
}

#[tokio::test]
async fn the_address_family_can_change_back_and_forth() {
    let guest = Guest::start().await;
    guest.configured("10.0.0.2/16", "10.0.0.1").await;
    guest.configured("2001:db8::2/64", "2001:db8::1").await;
    guest.configured("2001:db8::2/80", "2001:db8::1").await;
    guest.configured("10.0.0.2/24", "10.0.0.1").await;
    guest.configured("10.0.0.2/16", "10.0.0.1").await;
}

#[tokio::test]
async fn an_ipv6_address_is_usable_at_once() {
    let guest = Guest::start().await;
    guest.configured("2001:db8::2/64", "2001:db8::1").await;
    assert_eq!(guest.address_info()[0].get("tentative"), None);
}

#[tokio::test]
async fn an_ipv6_router_may_be_link_local() {
    let guest = Guest::start().await;
    guest.configured("2001:db8::2/64", "fe80::1").await;
    assert_eq!(guest.default_routes()[0]["dev"], "eth0");
}

#[tokio::test]
async fn the_kernels_link_local_address_survives() {
    let guest = Guest::start().await;
    guest.sh("ip link set eth0 up");
    guest.settled().await;
    let before = guest.link_local();
    guest.configured("10.0.0.2/16", "10.0.0.1").await;
    guest.configured("2001:db8::2/64", "2001:db8::1").await;
    assert_eq!(guest.link_local(), before);
}

#[tokio::test]
async fn router_advertisements_are_ignored() {
    let guest = Guest::start().await;
    guest.configured("10.0.0.2/16", "10.0.0.1").await;
    assert_eq!(guest.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra"), "0\n");
}

#[tokio::test]
async fn routes_other_than_default_routes_stay() {
    let guest = Guest::start().await;
    guest.configured("10.0.0.2/16", "10.0.0.1").await;
    guest.sh("ip route add 172.16.0.0/12 via 10.0.0.9");
    guest.configured("10.0.0.2/16", "10.0.0.1").await;
    assert_eq!(guest.json("ip -j route show 172.16.0.0/12")[0]["gateway"], "10.0.0.9");
}

#[tokio::test]
async fn a_symlinked_resolv_conf_is_replaced_and_its_target_untouched() {
    let guest = Guest::start().await;
    guest.sh("mkdir /etc/run; echo stub > /etc/run/stub; ln -s run/stub /etc/resolv.conf");
    guest.configure("10.0.0.2/16", "10.0.0.1", &["9.9.9.9"]).await.unwrap();
    assert!(guest.resolv_conf().ends_with("nameserver 9.9.9.9\n"));
    assert_eq!(guest.sh("cat /etc/run/stub; stat -c %F /etc/resolv.conf"), "stub\nregular file\n");
}

#[tokio::test]
async fn without_name_servers_resolv_conf_is_not_changed() {
    let guest = Guest::start().await;
    guest.configured("10.0.0.2/16", "10.0.0.1").await;
    assert_eq!(guest.sh("ls -A /etc"), "");
    guest.sh("echo mine > /etc/resolv.conf");
    guest.configured("10.0.0.3/16", "10.0.0.1").await;
    assert_eq!(guest.resolv_conf(), "mine\n");
}

#[tokio::test]
async fn an_invalid_request_names_its_field_and_changes_nothing() {
    let guest = Guest::start().await;
    guest.configure("10.0.0.2/16", "10.0.0.1", &["1.1.1.1"]).await.unwrap();
    let before = guest.settled().await;
    let seventeen = ["1.1.1.1"; 17];
    for (ip, gateway, dns, field) in [
        ("10.0.0.2/33", "10.0.0.1", &[][..], "ip"),
        ("10.0.0.2/0", "10.0.0.1", &[], "ip"),
        ("10.0.0.2", "10.0.0.1", &[], "ip"),
        ("", "10.0.0.1", &[], "ip"),
        ("guest/16", "10.0.0.1", &[], "ip"),
        ("10.0.0.2/16; reboot", "10.0.0.1", &[], "ip"),
        ("0.0.0.0/16", "10.0.0.1", &[], "ip"),
        ("224.0.0.1/16", "10.0.0.1", &[], "ip"),
        ("127.0.0.1/8", "127.0.0.2", &[], "ip"),
        ("10.0.0.0/16", "10.0.0.1", &[], "ip"),
        ("10.0.255.255/16", "10.0.0.1", &[], "ip"),
        ("fe80::1/129", "fe80::2", &[], "ip"),
        ("::/64", "fe80::2", &[], "ip"),
        ("ff02::1/64", "fe80::2", &[], "ip"),
        ("::1/64", "fe80::2", &[], "ip"),
        ("10.0.0.3/16", "10.1.0.1", &[], "gateway"),
        ("10.0.0.3/16", "10.0.0.3", &[], "gateway"),
        ("10.0.0.3/16", "0.0.0.0", &[], "gateway"),
        ("10.0.0.3/16", "10.0.255.255", &[], "gateway"),
        ("10.0.0.3/16", "224.0.0.1", &[], "gateway"),
        ("10.0.0.3/16", "fe80::1", &[], "gateway"),
        ("10.0.0.3/16", "", &[], "gateway"),
        ("2001:db8::2/64", "2001:db9::1", &[], "gateway"),
        ("10.0.0.3/16", "10.0.0.1", &["9.9.9.9", "one.one.one.one"], "dns[1]"),
        ("10.0.0.3/16", "10.0.0.1", &["0.0.0.0"], "dns[0]"),
        ("10.0.0.3/16", "10.0.0.1", &["9.9.9.9\noptions x"], "dns[0]"),
        ("10.0.0.3/16", "10.0.0.1", &seventeen, "dns"),
    ] {
        let error = guest.configure(ip, gateway, dns).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{ip} {gateway}: {error:?}");
        assert_eq!(error.field.as_deref(), Some(field), "{ip} {gateway}: {error:?}");
    }
    assert_eq!(guest.state(), before);
}

#[tokio::test]
async fn without_an_ethernet_interface_a_request_fails_and_says_why() {
    // An interface that the guest created for other purposes does not count.
    for setup in ["", "ip link add br0 type bridge"] {
        let guest = Guest::with(setup).await;
        let error = guest.configure("10.0.0.2/16", "10.0.0.1", &["1.1.1.1"]).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::NetworkFailed), "{setup}: {error:?}");
        assert!(error.message.contains("no Ethernet interface"), "{setup}: {error:?}");
        assert_eq!(guest.sh("ls -A /etc"), "", "{setup}");
    }
}

#[tokio::test]
async fn simultaneous_configurations_are_applied_one_after_the_other() {
    let guest = Guest::start().await;
    let plans = [("10.0.0.2/16", "10.0.0.1"), ("10.0.0.3/24", "10.0.0.9")];
    for _ in 0..10 {
        let (first, second) = tokio::join!(
            guest.configure(plans[0].0, plans[0].1, &["1.1.1.1"]),
            guest.configure(plans[1].0, plans[1].1, &["2.2.2.2"]),
        );
        first.unwrap();
        second.unwrap();
        let last = plans.iter().position(|(ip, _)| guest.addresses() == [*ip]).unwrap();
        guest.assert_only(plans[last].0, plans[last].1);
        assert!(guest.resolv_conf().contains(["1.1.1.1", "2.2.2.2"][last]));
    }
}
