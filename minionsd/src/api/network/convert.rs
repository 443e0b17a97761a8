//! Conversion of networks between REST types and wire types.

use super::super::status::interface;
use minions_api::network as rest;
use minions_proto::Invalid;
use minions_proto::message as wire;

/// Converts a request completely. [`wire::ChangeNetwork::beyond_base`] reports whether it exceeds the base protocol.
pub(in crate::api) fn wire(request: rest::NetworkRequest) -> wire::ChangeNetwork {
    let rest::NetworkRequest {
        ip,
        gateway,
        dns,
        interfaces,
        routes,
        search,
        mtu,
        hostname,
        verify,
        confirm_within_ms,
        dry_run,
    } = request;
    wire::ChangeNetwork {
        ip,
        gateway,
        interfaces: interfaces.into_iter().map(interface_change).collect(),
        routes: routes.map(|all| all.into_iter().map(route_change).collect()),
        dns: Some(dns).filter(|dns| !dns.is_empty()),
        search,
        mtu,
        hostname,
        verify: verify.map(|all| all.into_iter().map(check).collect()),
        confirm_within_ms,
        dry_run,
    }
}

/// Converts a change to the request of the base protocol.
pub(in crate::api) fn base(change: wire::ChangeNetwork) -> Result<wire::ConfigureNetwork, Invalid> {
    let given =
        |field: &str, value: Option<String>| value.ok_or_else(|| Invalid::new(field, "is missing"));
    Ok(wire::ConfigureNetwork {
        ip: given("ip", change.ip)?,
        gateway: given("gateway", change.gateway)?,
        dns: change.dns.unwrap_or_default(),
    })
}

fn interface_change(interface: rest::InterfaceRequest) -> wire::InterfaceChange {
    let rest::InterfaceRequest { name, mac, addresses, gateways, mtu } = interface;
    wire::InterfaceChange { name, mac, addresses, gateways, mtu }
}

fn route_change(route: rest::RouteRequest) -> wire::RouteChange {
    let rest::RouteRequest { to, via, interface, on_link, metric } = route;
    wire::RouteChange { to, via, interface, on_link, metric }
}

fn check(check: rest::Check) -> wire::Check {
    match check {
        rest::Check::Link => wire::Check::Link,
        rest::Check::Addresses => wire::Check::Addresses,
        rest::Check::Route => wire::Check::Route,
        rest::Check::Gateway => wire::Check::Gateway,
        rest::Check::Dns => wire::Check::Dns,
    }
}

fn checked(check: wire::Check) -> rest::Check {
    match check {
        wire::Check::Link => rest::Check::Link,
        wire::Check::Addresses => rest::Check::Addresses,
        wire::Check::Route => rest::Check::Route,
        wire::Check::Gateway => rest::Check::Gateway,
        wire::Check::Dns => rest::Check::Dns,
    }
}

pub(super) fn applied(changed: wire::NetworkChanged) -> rest::NetworkApplied {
    let wire::NetworkChanged { message, changed, changes, dns_owner, verified, warnings, pending } =
        changed;
    rest::NetworkApplied {
        status: "ok".into(),
        message,
        changed,
        changes: changes.map(|all| all.into_iter().map(difference).collect()),
        dns_owner,
        verified: verified.map(|all| all.into_iter().map(checked).collect()),
        warnings,
        pending: pending.map(waiting),
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

fn difference(difference: wire::NetworkDiff) -> rest::NetworkDiff {
    let wire::NetworkDiff { what, interface, from, to } = difference;
    rest::NetworkDiff { what, interface, from, to }
}

fn waiting(pending: wire::PendingChange) -> rest::PendingChange {
    let wire::PendingChange { id, expires_in_ms } = pending;
    rest::PendingChange { id, expires_in_ms }
}

pub(super) fn network(state: wire::NetworkState) -> rest::Network {
    let wire::NetworkState { hostname, interfaces, routes, dns, pending } = state;
    let wire::Dns { owner, servers, search } = dns;
    rest::Network {
        status: "ok".into(),
        hostname: Some(hostname),
        interfaces: interfaces.into_iter().map(interface).collect(),
        routes: Some(routes.into_iter().map(route).collect()),
        dns: Some(rest::Dns { owner, servers, search }),
        pending: pending.map(waiting),
    }
}

fn route(route: wire::Route) -> rest::Route {
    let wire::Route { to, via, interface, metric, protocol, on_link } = route;
    rest::Route { to, via, interface, metric, protocol, on_link }
}
