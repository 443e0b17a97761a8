//! `GET` and `PUT /vms/{vm}/network`, `POST /vms/{vm}/network/confirm`.

pub use minions_proto::message::{Check, Dns, NetworkDiff, PendingChange, Route};

use crate::status::Interface;
use minions_proto::message::{ChangeNetwork, InterfaceChange, RouteChange};
use serde::{Deserialize, Serialize};

/// Network configuration to apply to the guest. `ip` and `gateway` are sufficient: the first
/// Ethernet interface then gets exactly this address and this default route, and its other
/// addresses and default routes are removed. Fields other than `ip`, `gateway` and `dns` require
/// the agent feature `network2`. Repeating a request changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Address of the first Ethernet interface, with prefix length. Excludes `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.2/16"))]
    pub ip: Option<String>,
    /// Next hop of the default route, in the subnet of `ip` (or IPv6 link-local). Requires `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.1"))]
    pub gateway: Option<String>,
    /// Name servers, at most 16. Empty: the guest's resolver configuration is not changed. A
    /// link-local server has the form `fe80::1%eth0`; without the interface it belongs to the only
    /// interface of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16, example = json!(["1.1.1.1"])))]
    pub dns: Vec<String>,
    /// Interfaces, each with all the addresses that it will have; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub interfaces: Vec<InterfaceRequest>,
    /// All routes of these interfaces, except the default routes from `gateways` and the routes to
    /// their own subnets; at most 256. Absent: existing routes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    pub routes: Option<Vec<RouteRequest>>,
    /// Search domains for short names, at most 16. Requires `dns`. Absent: existing domains are
    /// kept. Empty: they are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16, example = json!(["example.org"])))]
    pub search: Option<Vec<String>>,
    /// MTU in bytes, for every interface of this request without an MTU of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1280, maximum = 65535))]
    pub mtu: Option<u32>,
    /// Hostname of the guest's kernel, until the next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 64, example = "web-1"))]
    pub hostname: Option<String>,
    /// Checks after the change; if one fails, everything is rolled back. Absent: with `interfaces`,
    /// all checks except `dns` that have something to check; with `ip`, none. A check that is named
    /// here and has nothing to check is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Vec<Check>>,
    /// Milliseconds after which everything is rolled back, unless the change is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1000, maximum = 3_600_000))]
    pub confirm_within_ms: Option<u64>,
    /// Return the differences without applying the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Configuration of an interface. With neither `name` nor `mac` it applies to the first Ethernet
/// interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InterfaceRequest {
    /// Name of the interface in the guest's kernel, or an alternative one (altname).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub name: Option<String>,
    /// Link-layer address of the interface. Excludes `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "52:54:00:12:34:56"))]
    pub mac: Option<String>,
    /// All addresses of the interface with their prefix lengths, at most 64; the kernel's own
    /// link-local address is kept. Absent: existing addresses are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 64, example = json!(["10.0.0.2/16"])))]
    pub addresses: Option<Vec<String>>,
    /// Next hops of the default routes, at most one per address family. If this is empty and
    /// `addresses` is given, default routes over this interface are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 2, example = json!(["10.0.0.1"])))]
    pub gateways: Vec<String>,
    /// MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1280, maximum = 65535))]
    pub mtu: Option<u32>,
}

/// Route to add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// Destination network.
    #[cfg_attr(feature = "openapi", schema(example = "10.1.0.0/16"))]
    pub to: String,
    /// Next hop. Absent: the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.9"))]
    pub via: Option<String>,
    /// Name or MAC address of the interface. Absent: the interface whose subnet contains `via`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub interface: Option<String>,
    /// True if `via` is on the link although no subnet of the interface contains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_link: Option<bool>,
    /// Priority; lower values are preferred. Absent: the kernel's default, 0 for IPv4 and 1024 for
    /// IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// Converts the request completely; [`ChangeNetwork::beyond_base`] reports whether it exceeds the
/// base protocol.
impl From<NetworkRequest> for ChangeNetwork {
    fn from(request: NetworkRequest) -> Self {
        let NetworkRequest {
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
        Self {
            ip,
            gateway,
            interfaces: interfaces.into_iter().map(InterfaceChange::from).collect(),
            routes: routes.map(|all| all.into_iter().map(RouteChange::from).collect()),
            dns: Some(dns).filter(|dns| !dns.is_empty()),
            search,
            mtu,
            hostname,
            verify,
            confirm_within_ms,
            dry_run,
        }
    }
}

impl From<InterfaceRequest> for InterfaceChange {
    fn from(interface: InterfaceRequest) -> Self {
        let InterfaceRequest { name, mac, addresses, gateways, mtu } = interface;
        Self { name, mac, addresses, gateways, mtu }
    }
}

impl From<RouteRequest> for RouteChange {
    fn from(route: RouteRequest) -> Self {
        let RouteRequest { to, via, interface, on_link, metric } = route;
        Self { to, via, interface, on_link, metric }
    }
}

/// Result of a network change. An agent without `network2` returns only the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkApplied {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Text for people, written by the guest.
    #[cfg_attr(feature = "openapi", schema(example = "network configured"))]
    pub message: String,
    /// True if the change made a difference, or with `dry_run` would make one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
    /// Differences, at most 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<NetworkDiff>>,
    /// Owner of the guest's name servers: `resolv_conf`, `systemd_resolved`, `network_manager`.
    /// Absent if the request had no name servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "systemd_resolved"))]
    pub dns_owner: Option<String>,
    /// Checks that had something to check, and passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Vec<Check>>,
    /// Risks to the applied change: a journal that could not be written, or a network service of
    /// the guest that may undo the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
    /// Deadline and id for the confirmation, if the change needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// Confirmation of a network change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkConfirmRequest {
    /// Id of the pending change.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub id: String,
}

/// Acknowledgement that a network change is permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkConfirmed {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Text for people, written by the guest.
    pub message: String,
}

/// Network of the guest as its kernel reports it. An agent without `network2` reports only the
/// interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Network {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Hostname of the guest's kernel. Written by the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// All interfaces, including loopback.
    pub interfaces: Vec<Interface>,
    /// Routes of the main table, IPv4 and IPv6; at most 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// Resolver configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Change that waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_field_of_a_request_reaches_the_wire() {
        let request = json!({
            "ip": "10.0.0.2/16", "gateway": "10.0.0.1", "dns": ["1.1.1.1"],
            "interfaces": [{
                "name": "eth0", "mac": "52:54:00:12:34:56", "addresses": ["10.0.0.3/16"],
                "gateways": ["10.0.0.1"], "mtu": 1400,
            }],
            "routes": [{
                "to": "10.1.0.0/16", "via": "10.0.0.9", "interface": "eth0", "on_link": true, "metric": 7,
            }],
            "search": ["example.org"], "mtu": 1500, "hostname": "web-1", "verify": ["link", "dns"],
            "confirm_within_ms": 1000, "dry_run": true,
        });
        let sent = |request: &Value| {
            let request: NetworkRequest = serde_json::from_value(request.clone()).unwrap();
            serde_json::to_value(ChangeNetwork::from(request)).unwrap()
        };
        assert_eq!(sent(&request), request);
        assert_eq!(sent(&json!({ "dns": [] })), json!({}), "no name servers: not changed");
    }
}
