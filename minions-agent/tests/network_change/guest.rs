//! An agent in its own namespaces, connected by two veths to a neighbour that is the gateway.
//!
//! ```text
//!  agent │ eth0 ◀─ veth ─▶ peer0 │ neighbour: 10.0.0.1, 2001:db8::1
//!        │ eth1 ◀─ veth ─▶ peer1 │            2001:db8:1::1
//! ```

use crate::support::{self, RunningAgent, until};
use minions_proto::AgentError;
use minions_proto::message::{ChangeNetwork, NetworkChanged};
use serde_json::{Value, json};
use std::process::Command;

/// Path of the journal.
pub(crate) const RUN: &str = "/run/minions-agent/network.json";

/// Agent and its namespaces.
pub(crate) struct Guest {
    pub(crate) agent: RunningAgent,
}

impl Guest {
    /// Starts the agent. The neighbour has its own network namespace, so that queries really reach it.
    pub(crate) async fn start() -> Self {
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
                ip addr add 2001:db8::66/64 dev peer0 nodad
                ip addr add 2001:db8:1::1/64 dev peer1 nodad'
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

    pub(crate) fn sh(&self, script: &str) -> String {
        let output = Command::new("nsenter")
            .args(["--net", "--mount", "--uts", "-t", &self.agent.pid().to_string(), "--"])
            .args(["sh", "-ec", script])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns everything that a change may affect, as printed by `ip` and other tools. Lifetimes that decrease are
    /// cut off.
    pub(crate) fn state(&self) -> String {
        // The kernel adds a queue when an interface is first set up, and keeps it.
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

    /// Returns the state once both interfaces are up and have their link-local addresses.
    pub(crate) async fn settled(&self) -> String {
        until("the link-local addresses are there", async || {
            let all = self.sh("ip -6 -o addr show scope link");
            (all.lines().count() == 2 && !all.contains("tentative")).then_some(())
        })
        .await;
        self.state()
    }

    pub(crate) async fn change(&self, change: Value) -> Result<NetworkChanged, AgentError> {
        let change: ChangeNetwork = serde_json::from_value(change).unwrap();
        self.agent.call(&change).await
    }

    /// Starts a guest with a configuration that is hard to restore. Returns it and its state.
    pub(crate) async fn with_history() -> (Self, String) {
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

    /// Waits until the state equals `before`: duplicate address detection of restored addresses takes a while.
    pub(crate) async fn is_again(&self, before: &str) {
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

    pub(crate) fn journal(&self) -> String {
        self.sh(&format!("ls {RUN} 2>/dev/null || true"))
    }
}

/// Returns a change of two interfaces with all settings.
pub(crate) fn both() -> Value {
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
