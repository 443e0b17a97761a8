//! Derives findings from the answers of minionsd and the guest. Does no I/O.

use super::finding::{Finding, Layer};
use super::identify::ProbedService;
use crate::failure::Failure;
use minions_api::health::{AgentInfo, Health};
use minions_api::network::Network;
use minions_api::status::Interface;
use minions_api::vm::{self, Failure as Fault, Vm};
use minions_proto::hybrid::MAX_PATH_LEN;
use minions_proto::message::{Feature, OPERATIONS};
use minions_proto::version::PROTOCOL;
use std::net::IpAddr;

/// Offset from which the clock is reported: a larger one breaks certificates, logs and builds.
const CLOCK_TOLERANCE_MS: u64 = 1000;

/// Operation that includes reading the network.
const STATUS: &str = "status";

/// Answers of the guest to the doctor's own calls.
#[derive(Debug)]
pub(super) struct GuestAnswers {
    pub(super) health: Result<Health, Failure>,
    pub(super) network: Result<Network, Failure>,
    /// Service on the agent's port, if it was probed.
    pub(super) service: Option<ProbedService>,
}

/// Returns the findings on every layer after minionsd.
pub(super) fn examine(known: &Vm, answers: &GuestAnswers) -> Vec<Finding> {
    let health = match &answers.health {
        Ok(health) => health,
        Err(error) => return blocked(known, error, answers.service.as_ref()),
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
    findings.extend(network(known, health, &answers.network));
    findings
}

/// Returns the findings for a guest that does not answer: the broken layer, and those before and after it.
fn blocked(known: &Vm, error: &Failure, service: Option<&ProbedService>) -> Vec<Finding> {
    let broken = match fault(known, error) {
        Some(fault) if is_silent(known, fault) => silent(known, error, service),
        Some(fault) => {
            let (layer, advice) = place(known, fault);
            Finding::broken(layer, error.to_string(), advice)
        }
        None => Finding::broken(Layer::Agent, error.to_string(), Fault::AgentSilent.advice()),
    };
    let mut layer = broken.layer;
    // The end of the guest shows at some layer.
    if let Some(observed) = known.reason.as_ref().and_then(|reason| reason.layer)
        && matches!(
            fault(known, error),
            Some(Fault::Rebooting | Fault::PoweredOff | Fault::PausedOrHung)
        )
    {
        layer = place(known, observed).0;
    }
    let broken = Finding { layer, ..broken };
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
    findings.push(broken);
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

/// Returns the fault of the call that has just failed, or else that of the last probe.
fn fault(known: &Vm, error: &Failure) -> Option<Fault> {
    let of_call = match error {
        Failure::Problem(problem) => problem.failure,
        _ => None,
    };
    of_call.or(known.reason.as_ref().map(|reason| reason.failure))
}

/// Reports whether a process listens on the agent's port that has never answered as an agent, and has sent nothing
/// that identifies it.
pub(super) fn is_unidentified(known: &Vm, error: &Failure) -> bool {
    fault(known, error).is_some_and(|fault| is_silent(known, fault))
}

fn is_silent(known: &Vm, fault: Fault) -> bool {
    matches!(fault, Fault::AgentSilent | Fault::AgentClosed) && known.last_seen.is_none()
}

fn silent(known: &Vm, error: &Failure, service: Option<&ProbedService>) -> Finding {
    let port = known.agent_port;
    match service {
        Some(ProbedService::Foreign(service)) => {
            let finding = format!(
                "another service answers on port {port} in the guest (it looks like {service})"
            );
            Finding::broken(Layer::Agent, finding, set_agent_port(known))
        }
        Some(ProbedService::Silent) => {
            let finding = format!(
                "the agent hangs, or another service answers on port {port} in the guest (it looks like a service \
                 that accepts connections and sends nothing)"
            );
            Finding::broken(Layer::Agent, finding, hangs_or_port(known))
        }
        None => Finding::broken(Layer::Agent, error.to_string(), hangs_or_port(known)),
    }
}

/// Returns advice for a port that another service uses.
fn set_agent_port(known: &Vm) -> String {
    format!(
        "set agent_port in minionsd.toml to the port of minions-agent (for this VM only: [[agent_ports]] with vms = \
         \"{}\"), and the same port in the guest: minions-agent --port, or ListenStream= of minions-agent.socket; or \
         stop the other service (`ss --vsock -lp` in the guest lists it)",
        known.name
    )
}

fn hangs_or_port(known: &Vm) -> String {
    format!(
        "{}. If another service uses the port: {}",
        Fault::AgentSilent.advice(),
        set_agent_port(known)
    )
}

/// Returns the layer of a fault, and advice.
fn place(known: &Vm, fault: Fault) -> (Layer, String) {
    let advice = match fault {
        Fault::ConnectFailed if known.socket.len() > MAX_PATH_LEN => {
            "shorten `socket_dir` of minionsd, or the VM's name".to_owned()
        }
        Fault::ProtocolError => set_agent_port(known),
        fault => fault.advice().to_owned(),
    };
    (layer_of(fault), advice)
}

/// Returns the layer to which a fault belongs.
fn layer_of(fault: Fault) -> Layer {
    match fault {
        Fault::DaemonExhausted => Layer::Daemon,
        Fault::NoSocket | Fault::ConnectFailed => Layer::Socket,
        Fault::NoListener => Layer::Vmm,
        Fault::NoHandshake | Fault::BadHandshake => Layer::Connect,
        Fault::NoAgent
        | Fault::AgentSilent
        | Fault::AgentClosed
        | Fault::ProtocolError
        | Fault::AgentError
        | Fault::Rebooting
        | Fault::PoweredOff
        | Fault::Restoring
        | Fault::RestoreFailed
        | Fault::PausedOrHung => Layer::Agent,
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
    let refused: Vec<_> =
        OPERATIONS.into_iter().filter(|operation| !allows(agent, operation)).collect();
    let what = match refused.as_slice() {
        [] => what,
        refused => format!("{what}, restricted: started without {} (--allow)", refused.join(", ")),
    };
    let missing: Vec<_> = Feature::ALL
        .into_iter()
        .filter(|feature| allows(agent, feature.operation()) && !agent.features.supports(*feature))
        .map(Feature::name)
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

/// Reports whether the agent was started with this operation.
fn allows(agent: &AgentInfo, operation: &str) -> bool {
    agent.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == operation))
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

fn network(known: &Vm, health: &Health, answer: &Result<Network, Failure>) -> Vec<Finding> {
    let network = match answer {
        Ok(network) => network,
        Err(error) => {
            let finding = match &health.agent {
                // Reading the network belongs to the operation `status`.
                Some(agent) if !allows(agent, STATUS) => {
                    format!("not readable: this agent is restricted (started without `{STATUS}`)")
                }
                Some(_) | None => error.to_string(),
            };
            let unknown = |layer| Finding::unknown(layer, finding.clone());
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
            ("agent_silent", Layer::Agent),
            ("protocol_error", Layer::Agent),
        ] {
            let reason =
                json!({ "failure": fault, "message": "x", "at": "2026-01-01T00:00:00.000Z" });
            let vm = vm(json!({ "state": "unreachable", "reason": reason }));
            let answers =
                GuestAnswers { health: Err(silent()), network: Err(silent()), service: None };
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
        let restricted = of(json!(["generations", "samples"]), json!(["health", "status"]));
        assert_eq!(restricted.verdict, Verdict::Fine);
        let refused = "restricted: started without network, exec, write_file, clock, power, files, forward, quiesce (--allow)";
        assert!(restricted.finding.ends_with(refused), "{restricted:?}");
        // An old agent serves the operation without its feature.
        let features = json!(["exec2", "exec_limits", "generations", "reuse"]);
        let old = of(features, json!(["health", "exec", "network"]));
        assert_eq!(old.verdict, Verdict::Doubtful);
        assert!(old.finding.ends_with("without network2"), "{old:?}");
        let all = of(Value::from(Feature::ALL.map(Feature::name).to_vec()), Value::Null);
        assert_eq!((all.verdict, all.finding.contains("without")), (Verdict::Fine, false));
    }

    #[test]
    fn a_network_that_the_agent_is_not_allowed_to_report_is_no_error() {
        let vm = vm(json!({}));
        let of = |allowed: Value| {
            let agent = json!({ "name": "a", "version": "1", "protocol": PROTOCOL, "boot_id": "b",
                                "instance_id": "i", "features": [], "allowed": allowed });
            let health = health(json!({ "agent": agent }));
            network(&vm, &health, &Err(Failure::Usage("the call failed")))
        };
        for finding in of(json!(["health", "exec"])) {
            assert_eq!(finding.verdict, Verdict::Unknown);
            assert!(
                finding.finding.contains("restricted (started without `status`)"),
                "{finding:?}"
            );
        }
        for finding in of(json!(["health", "status"])) {
            assert_eq!(finding.finding, "the call failed");
        }
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
