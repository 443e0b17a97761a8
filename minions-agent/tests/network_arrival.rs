//! Configuration of interfaces that do not exist yet, in the agent's own network namespace.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{ChangeNetwork, ConfigureNetwork};
use serde_json::json;
use std::process::Command;
use support::{RunningAgent, until};

/// Protocol and groups of the netlink sockets of a waiting request: link changes, and udev events.
const WAITS: [(&str, &str); 2] = [("0", "00000001"), ("15", "00000002")];

struct Guest {
    agent: RunningAgent,
}

impl Guest {
    /// Starts an agent in namespaces without an interface other than the loopback.
    async fn start() -> Self {
        let script = "set -e
            mount --make-rprivate /
            mount -t tmpfs tmpfs /etc
            mount -t tmpfs tmpfs /run
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
            .args(["--net", "--mount", "-t", &self.agent.pid().to_string(), "--"])
            .args(["sh", "-ec", script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until the agent waits for interfaces, which shows that it has received the request.
    async fn waits(&self) {
        let sockets = format!("/proc/{}/net/netlink", self.agent.pid());
        until("the agent waits", async || {
            let sockets = std::fs::read_to_string(&sockets).unwrap();
            let is_there = |(protocol, groups): &(&str, &str)| {
                let mut lines = sockets.lines().map(|line| line.split_ascii_whitespace());
                lines
                    .any(|mut words| words.nth(1) == Some(protocol) && words.nth(1) == Some(groups))
            };
            WAITS.iter().all(is_there).then_some(())
        })
        .await;
    }

    fn plug_in(&self, name: &str, mac: &str) {
        self.sh(&format!("ip link add name {name} address {mac} type veth peer name p-{name}"));
        self.sh(&format!("ip link set p-{name} up"));
    }

    fn has(&self, address: &str) -> bool {
        self.sh("ip -4 addr").contains(&format!(" {address} "))
    }
}

#[tokio::test]
async fn a_base_request_waits_for_the_first_card() {
    let guest = Guest::start().await;
    let base = ConfigureNetwork {
        ip: "10.0.0.2/16".into(),
        gateway: "10.0.0.1".into(),
        dns: vec!["1.1.1.1".into()],
    };
    let (changed, ()) = tokio::join!(guest.agent.call(&base), async {
        guest.waits().await;
        guest.plug_in("eth0", "52:54:00:00:00:01");
    });
    assert_eq!(changed.unwrap().changed, Some(true));
    assert!(guest.has("10.0.0.2/16"));
}

#[tokio::test]
async fn a_change_waits_for_every_interface_that_it_names() {
    let guest = Guest::start().await;
    let change: ChangeNetwork = serde_json::from_value(json!({
        "interfaces": [
            { "name": "eth0", "addresses": ["10.0.0.2/16"] },
            { "mac": "52:54:00:00:00:02", "addresses": ["10.1.0.2/16"] },
            // The change sets this interface up, because its route needs it.
            { "name": "lan", "mtu": 1400 },
        ],
        "routes": [{ "to": "10.9.0.0/16", "interface": "lan" }],
        "verify": [],
    }))
    .unwrap();
    let (changed, ()) = tokio::join!(guest.agent.call(&change), async {
        guest.waits().await;
        guest.plug_in("eth0", "52:54:00:00:00:01");
        guest.plug_in("eth1", "52:54:00:00:00:02");
        // The interface is renamed later, as by udev.
        guest.plug_in("eth2", "52:54:00:00:00:03");
        guest.waits().await;
        guest.sh("ip link set eth2 name lan");
    });
    assert_eq!(changed.unwrap().changed, Some(true));
    assert!(guest.has("10.0.0.2/16") && guest.has("10.1.0.2/16"));
    assert!(guest.sh("ip route").contains("10.9.0.0/16 dev lan"));
}

#[tokio::test]
async fn a_waiting_dry_run_does_not_block_other_requests() {
    let guest = Guest::start().await;
    guest.plug_in("eth0", "52:54:00:00:00:01");
    let change = |name: &str, dry: bool| -> ChangeNetwork {
        let interface = json!({ "name": name, "addresses": ["10.0.0.2/16"] });
        serde_json::from_value(json!({ "interfaces": [interface], "verify": [], "dry_run": dry }))
            .unwrap()
    };
    let (waited, other) = (change("eth9", true), change("eth0", false));
    let (waited, ()) = tokio::join!(guest.agent.call(&waited), async {
        guest.waits().await;
        assert_eq!(guest.agent.call(&other).await.unwrap().changed, Some(true));
        // The first request still waits: the other one has overtaken it.
        guest.plug_in("eth9", "52:54:00:00:00:09");
    });
    assert_eq!(waited.unwrap().message, "dry run: the network would change");
}
