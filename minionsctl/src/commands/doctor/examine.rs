//! Derives findings from the answers of minionsd and the guest. Does no I/O.

use super::finding::{Finding, Layer};
use crate::failure::Failure;
use minions_api::health::Health;
use minions_api::network::Network;
use minions_api::status::Interface;
use minions_api::vm::{self, Failure as Fault, Vm};
use minions_proto::message::{
    CLOCK_FEATURE, EXEC_FEATURE, EXEC_LIMITS_FEATURE, NETWORK_FEATURE, OPERATIONS, POWER_FEATURE,
};
use minions_proto::version::PROTOCOL;
use std::net::IpAddr;

/// Offset from which the clock is reported: a larger one breaks certificates, logs and builds.
const CLOCK_TOLERANCE_MS: u64 = 1000;

/// Features of an agent of this version, each with the operation to which it belongs.
const FEATURES: [(&str, &str); 5] = [
    ("exec", EXEC_FEATURE),
    ("exec", EXEC_LIMITS_FEATURE),
    ("network", NETWORK_FEATURE),
    ("clock", CLOCK_FEATURE),
    ("power", POWER_FEATURE),
];

/// Answers of the guest to the doctor's own calls.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) health: Result<Health, Failure>,
    pub(super) network: Result<Network, Failure>,
}

/// Returns the findings on every layer after minionsd.
pub(super) fn examine(known: &Vm, answers: &Answers) -> Vec<Finding> {
    let health = match &answers.health {
        Ok(health) => health,
        Err(error) => return blocked(known, error),
    };
    let mut findings = vec![
        Finding::fine(Layer::Socket, &known.socket),
        vmm(known),
        Finding::fine(Layer::Connect, "the VMM passes connections on to the guest"),
        Finding::fine(
            Layer::Agent,
            format!("answers; the guest's hostname is {}", health.hostname),
        ),
        version(health),
        clock(known, health),
    ];
    findings.extend(network(known, &answers.network));
    findings
}

/// Returns the findings for a guest that does not answer: the broken layer, and those before and after it.
fn blocked(known: &Vm, error: &Failure) -> Vec<Finding> {
    let fault = match error {
        Failure::Problem(problem) => problem.failure,
        _ => None,
    };
    let fault = fault.or(known.reason.as_ref().map(|reason| reason.failure));
    let (mut layer, advice) = fault.map_or((Layer::Agent, AGENT_HANGS), place);
    // The end of the guest shows at some layer.
    if let Some(shown) = known.reason.as_ref().and_then(|reason| reason.layer)
        && matches!(fault, Some(Fault::Rebooting | Fault::PoweredOff))
    {
        layer = place(shown).0;
    }
    let mut findings = Vec::new();
    for reached in [Layer::Socket, Layer::Vmm, Layer::Connect, Layer::Agent] {
        if reached < layer {
            findings.push(match reached {
                Layer::Vmm => vmm(known),
                Layer::Socket => Finding::fine(reached, &known.socket),
                _ => Finding::fine(reached, "the VMM passes connections on to the guest"),
            });
        }
    }
    findings.push(Finding::broken(layer, error.to_string(), advice));
    let behind = [
        Layer::Vmm,
        Layer::Connect,
        Layer::Agent,
        Layer::Version,
        Layer::Clock,
        Layer::Network,
        Layer::Dns,
    ];
    let not_reached = |layer| Finding::unknown(layer, "not reached");
    findings.extend(behind.into_iter().filter(|one| *one > layer).map(not_reached));
    findings
}

const AGENT_HANGS: &str = "the agent or the guest hangs: check the guest's console; its service manager \
                           restarts an agent that hangs";

/// Returns the layer of a fault, and advice.
fn place(fault: Fault) -> (Layer, &'static str) {
    match fault {
        Fault::DaemonExhausted => (
            Layer::Daemon,
            "minionsd is out of descriptors or memory: raise its limits (LimitNOFILE=)",
        ),
        Fault::NoSocket => (Layer::Socket, "start the VM, with this vsock socket"),
        Fault::ConnectFailed => (
            Layer::Socket,
            "minionsd cannot connect: give its user access to the socket (mode, group)",
        ),
        Fault::NoListener => (
            Layer::Vmm,
            "the VMM has ended and its socket file remains: remove the file, then start the VM",
        ),
        Fault::NoHandshake => (
            Layer::Connect,
            "wait if the guest is booting, resume it if it is paused; otherwise check its console",
        ),
        Fault::BadHandshake => (
            Layer::Connect,
            "the listener does not speak hybrid vsock: give the VM a socket of its own",
        ),
        Fault::NoAgent => (
            Layer::Agent,
            "wait if the guest is booting; otherwise install minions-agent (deploy/install-agent), or check \
             that the guest has /dev/vsock",
        ),
        Fault::AgentSilent | Fault::AgentClosed => (Layer::Agent, AGENT_HANGS),
        Fault::ProtocolError => {
            (Layer::Agent, "another program listens on VSOCK port 1024 in the guest: stop it")
        }
        Fault::AgentError => {
            (Layer::Agent, "check the agent's log in the guest, and restart the agent")
        }
        Fault::Rebooting => (Layer::Agent, "wait until the guest has booted"),
        Fault::PoweredOff => (Layer::Agent, "start the VM"),
    }
}

fn vmm(known: &Vm) -> Finding {
    let Some(vm::Vmm { pid, name, rss_bytes, .. }) = &known.vmm else {
        return Finding::unknown(
            Layer::Vmm,
            "minionsd cannot identify the process that listens on the socket",
        );
    };
    let name = name.as_deref().unwrap_or("a process");
    let size = rss_bytes.map_or(String::new(), |bytes| format!(", {} MiB", bytes / (1024 * 1024)));
    Finding::fine(Layer::Vmm, format!("{name} (pid {pid}{size}) listens"))
}

fn version(health: &Health) -> Finding {
    const NEWER: &str = "install a newer agent (deploy/install-agent)";
    let Some(agent) = &health.agent else {
        return Finding::doubtful(
            Layer::Version,
            "a base agent: no streams, no exec ids, no clock, no network rollback",
            NEWER,
        );
    };
    let what = format!("{} {}, protocol {}", agent.name, agent.version, agent.protocol);
    let knows = |feature: &str| agent.features.iter().any(|known| known == feature);
    let allows = |operation: &str| {
        agent.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == operation))
    };
    let refused: Vec<_> = OPERATIONS.into_iter().filter(|operation| !allows(operation)).collect();
    let what = match refused.as_slice() {
        [] => what,
        refused => format!("{what}, started without {} (--allow)", refused.join(", ")),
    };
    let missing: Vec<_> = FEATURES
        .into_iter()
        .filter(|(operation, feature)| allows(operation) && !knows(feature))
        .map(|(_, feature)| feature)
        .collect();
    if !missing.is_empty() {
        let finding = format!("{what}, without {}", missing.join(", "));
        return Finding::doubtful(Layer::Version, finding, NEWER);
    }
    if agent.protocol > PROTOCOL {
        let advice = "install a newer minionsd to use all features of this agent";
        return Finding::doubtful(Layer::Version, what, advice);
    }
    Finding::fine(Layer::Version, what)
}

fn clock(known: &Vm, health: &Health) -> Finding {
    let Some(offset) = health.clock_offset_ms else {
        return Finding::unknown(Layer::Clock, "the agent does not report its clock");
    };
    let finding = format!("{offset:+} ms relative to the host's");
    if offset.unsigned_abs() <= CLOCK_TOLERANCE_MS {
        return Finding::fine(Layer::Clock, finding);
    }
    Finding::doubtful(Layer::Clock, finding, format!("minionsctl set-clock {}", known.name))
}

fn network(known: &Vm, answer: &Result<Network, Failure>) -> Vec<Finding> {
    let network = match answer {
        Ok(network) => network,
        Err(error) => {
            let unknown = |layer| Finding::unknown(layer, error.to_string());
            return vec![unknown(Layer::Network), unknown(Layer::Dns)];
        }
    };
    let configure =
        format!("minionsctl configure-network {} --ip … --gateway … --dns …", known.name);
    vec![addresses(network, &configure), dns(network, &configure)]
}

fn addresses(network: &Network, configure: &str) -> Finding {
    let used: Vec<_> = network.interfaces.iter().filter_map(in_use).collect();
    if used.is_empty() {
        let down = network.interfaces.iter().any(|one| !one.up && global(one).next().is_some());
        let finding = if down {
            "an interface with an address is down"
        } else {
            "no interface has an address"
        };
        return Finding::broken(Layer::Network, finding, configure);
    }
    let used = used.join("; ");
    let Some(routes) = &network.routes else { return Finding::fine(Layer::Network, used) };
    let default = routes.iter().find(|route| matches!(route.to.as_str(), "0.0.0.0/0" | "::/0"));
    match default.map(|route| route.via.as_deref().unwrap_or("the link itself")) {
        Some(via) => Finding::fine(Layer::Network, format!("{used}; default route via {via}")),
        None => Finding::doubtful(Layer::Network, format!("{used}; no default route"), configure),
    }
}

/// Formats an interface as `eth0 10.0.0.2/16 fd00::2/64` if it is up and has an address that others can reach.
fn in_use(interface: &Interface) -> Option<String> {
    let addresses: Vec<_> = global(interface).collect();
    let usable = interface.up && !addresses.is_empty();
    usable.then(|| format!("{} {}", interface.name, addresses.join(" ")))
}

/// Returns the addresses that other hosts can reach: neither loopback nor link-local.
fn global(interface: &Interface) -> impl Iterator<Item = &str> {
    let known_to_others = |text: &&str| {
        let address = text.split('/').next().and_then(|address| address.parse().ok());
        address.is_some_and(|address| match address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        })
    };
    interface.addresses.iter().map(String::as_str).filter(known_to_others)
}

fn dns(network: &Network, configure: &str) -> Finding {
    let Some(dns) = &network.dns else {
        return Finding::unknown(Layer::Dns, "the agent does not report its name servers");
    };
    if dns.servers.is_empty() {
        return Finding::doubtful(Layer::Dns, "no name server is configured", configure);
    }
    Finding::fine(Layer::Dns, format!("{} ({})", dns.servers.join(", "), dns.owner))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use minions_api::vm::VmState;
    use serde_json::{Value, json};

    fn vm(more: Value) -> Vm {
        let mut vm = json!({
            "name": "web-1", "state": VmState::Ready, "since": "2026-01-01T00:00:00.000Z",
            "socket": "/run/minions/web-1.vsock", "failed_probes": 0, "cause": "answered",
            "pool": { "idle": 0, "in_use": 0, "limit": 8, "streams": 0 },
        });
        vm.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(vm).unwrap()
    }

    fn health(more: Value) -> Health {
        let mut health = json!({ "status": "ok", "uptime_secs": 1, "hostname": "web-1" });
        health.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(health).unwrap()
    }

    fn interface(name: &str, up: bool, addresses: &[&str]) -> Value {
        json!({
            "name": name, "up": up, "mtu": 1500, "addresses": addresses,
            "rx_bytes": 0, "rx_packets": 0, "rx_errors": 0, "rx_dropped": 0,
            "tx_bytes": 0, "tx_packets": 0, "tx_errors": 0, "tx_dropped": 0,
        })
    }

    fn verdict(findings: &[Finding], layer: Layer) -> (Verdict, &str) {
        let found = findings.iter().find(|finding| finding.layer == layer).unwrap();
        (found.verdict, &found.finding)
    }

    #[test]
    fn the_layer_of_the_fault_is_broken_and_the_ones_after_it_are_unknown() {
        let silent = || Failure::Usage("no answer");
        for (fault, layer) in [
            ("no_socket", Layer::Socket),
            ("no_listener", Layer::Vmm),
            ("no_handshake", Layer::Connect),
            ("no_agent", Layer::Agent),
        ] {
            let reason =
                json!({ "failure": fault, "message": "x", "at": "2026-01-01T00:00:00.000Z" });
            let vm = vm(json!({ "state": "unreachable", "reason": reason }));
            let answers = Answers { health: Err(silent()), network: Err(silent()) };
            let findings = examine(&vm, &answers);
            let broken: Vec<_> =
                findings.iter().filter(|one| one.verdict == Verdict::Broken).collect();
            assert_eq!(broken.len(), 1, "{fault}: {findings:?}");
            assert!(broken[0].layer == layer && broken[0].advice.is_some(), "{fault}");
            assert_eq!(verdict(&findings, Layer::Dns).0, Verdict::Unknown);
            assert_eq!(findings.len(), 8, "each layer once: {findings:?}");
        }
    }

    #[test]
    fn a_wrong_clock_and_an_old_agent_are_warnings() {
        let vm = vm(json!({}));
        let slow = health(json!({ "clock_offset_ms": -5000 }));
        let finding = clock(&vm, &slow);
        assert_eq!(finding.verdict, Verdict::Doubtful);
        assert_eq!(finding.advice.as_deref(), Some("minionsctl set-clock web-1"));
        assert_eq!(clock(&vm, &health(json!({ "clock_offset_ms": 5 }))).verdict, Verdict::Fine);
        assert_eq!(version(&slow).verdict, Verdict::Doubtful);
    }

    #[test]
    fn operations_excluded_by_allow_are_listed_and_do_not_mean_an_old_version() {
        let of = |features: Value, allowed: Value| {
            let agent = json!({ "name": "a", "version": "1", "protocol": PROTOCOL, "boot_id": "b",
                                "instance_id": "i", "features": features, "allowed": allowed });
            version(&health(json!({ "agent": agent })))
        };
        let restricted = of(json!([]), json!(["health", "status"]));
        assert_eq!(restricted.verdict, Verdict::Fine);
        let refused = "started without network, exec, write_file, clock, power (--allow)";
        assert!(restricted.finding.ends_with(refused), "{restricted:?}");
        // An old agent serves the operation without its feature.
        let old = of(json!(["exec2", "exec_limits"]), json!(["health", "exec", "network"]));
        assert_eq!(old.verdict, Verdict::Doubtful);
        assert!(old.finding.ends_with("without network2"), "{old:?}");
        let all = of(json!(["exec2", "exec_limits", "network2", "clock", "power"]), Value::Null);
        assert_eq!((all.verdict, all.finding.contains("without")), (Verdict::Fine, false));
    }

    #[test]
    fn a_network_needs_an_address_that_others_can_reach() {
        let of = |interfaces: Value, more: Value| {
            let mut network = json!({ "status": "ok", "interfaces": interfaces });
            network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let network: Network = serde_json::from_value(network).unwrap();
            [addresses(&network, "configure").verdict, dns(&network, "configure").verdict]
        };
        let lo = interface("lo", true, &["127.0.0.1/8", "::1/128"]);
        let bare = interface("eth0", true, &["fe80::1/64"]);
        let up = interface("eth0", true, &["10.0.0.2/16"]);
        let down = interface("eth0", false, &["10.0.0.2/16"]);
        let resolver =
            |servers: &[&str]| json!({ "owner": "resolv_conf", "servers": servers, "search": [] });
        let route = json!([{ "to": "0.0.0.0/0", "via": "10.0.0.1", "metric": 0, "protocol": "static", "on_link": false }]);
        assert_eq!(of(json!([lo, bare]), json!({}))[0], Verdict::Broken);
        assert_eq!(of(json!([lo, down]), json!({}))[0], Verdict::Broken);
        let without = json!({ "routes": [], "dns": resolver(&[]) });
        assert_eq!(of(json!([lo, up]), without), [Verdict::Doubtful, Verdict::Doubtful]);
        let complete = json!({ "routes": route, "dns": resolver(&["1.1.1.1"]) });
        assert_eq!(of(json!([lo, up]), complete), [Verdict::Fine, Verdict::Fine]);
    }
}
