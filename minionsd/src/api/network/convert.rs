//! Conversion of network changes to the base protocol, and of replies to REST types.

use minions_api::network as rest;
use minions_proto::Invalid;
use minions_proto::message as wire;

/// Converts a change to the request of the base protocol.
pub(super) fn base(change: wire::ChangeNetwork) -> Result<wire::ConfigureNetwork, Invalid> {
    let given =
        |field: &str, value: Option<String>| value.ok_or_else(|| Invalid::new(field, "is missing"));
    Ok(wire::ConfigureNetwork {
        ip: given("ip", change.ip)?,
        gateway: given("gateway", change.gateway)?,
        dns: change.dns.unwrap_or_default(),
    })
}

pub(super) fn applied(changed: wire::NetworkChanged) -> rest::NetworkApplied {
    let wire::NetworkChanged { message, changed, changes, dns_owner, verified, warnings, pending } =
        changed;
    rest::NetworkApplied {
        status: "ok".into(),
        message,
        changed,
        changes,
        dns_owner,
        verified,
        warnings,
        pending,
    }
}

/// Returns the outcome of a change in one word, for the audit entry.
pub(super) fn in_a_word(changed: &wire::NetworkChanged) -> String {
    match (changed.changed, &changed.pending) {
        (_, Some(_)) => "pending",
        (Some(false), _) => "unchanged",
        (Some(true) | None, None) => "changed",
    }
    .to_owned()
}

pub(super) fn network(state: wire::NetworkState) -> rest::Network {
    let wire::NetworkState { hostname, interfaces, routes, dns, pending } = state;
    rest::Network {
        status: "ok".into(),
        hostname: Some(hostname),
        interfaces,
        routes: Some(routes),
        dns: Some(dns),
        pending,
    }
}
