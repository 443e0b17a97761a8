//! `GET` and `PUT /vms/{vm}/network`, `POST /vms/{vm}/network/confirm`.

use crate::status::Interface;
use serde::{Deserialize, Serialize};

/// What the guest's network shall be. `ip` and `gateway` alone are enough: the first Ethernet interface
/// then gets exactly this, and other addresses and default routes of it go. Everything else needs an agent
/// with `network2` among its features. Doing it twice is doing it once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Address with prefix length, of the first Ethernet interface. Instead of `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.2/16"))]
    pub ip: Option<String>,
    /// Next hop of the default route, inside the subnet of `ip` (or IPv6 link-local). Goes with `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.1"))]
    pub gateway: Option<String>,
    /// Name servers, at most 16. None: the guest's resolver configuration stays as it is. A link-local one has the
    /// form `fe80::1%eth0`; without the interface it belongs to the only interface of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16, example = json!(["1.1.1.1"])))]
    pub dns: Vec<String>,
    /// Interfaces, each with all the addresses that it shall have; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub interfaces: Vec<InterfaceRequest>,
    /// All routes of these interfaces, default routes by their `gateways` and routes to their own subnets
    /// aside; at most 256. Absent: those that are there stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    pub routes: Option<Vec<RouteRequest>>,
    /// Domains in which short names are looked up, at most 16. Goes with `dns`. Absent: they stay; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 16, example = json!(["example.org"])))]
    pub search: Option<Vec<String>>,
    /// Largest packet in bytes, for every interface of this request that has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1280, maximum = 65535))]
    pub mtu: Option<u32>,
    /// The kernel's hostname, until the next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 64, example = "web-1"))]
    pub hostname: Option<String>,
    /// Checks after the change; if one fails, everything is put back. Absent: with `interfaces`, all except
    /// `dns` that have something to check; with `ip`, none. A check that is named here and has nothing to
    /// check is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Vec<Check>>,
    /// Everything is put back after so many milliseconds, unless the change is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1000, maximum = 3_600_000))]
    pub confirm_within_ms: Option<u64>,
    /// Only say what would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// One interface. With neither `name` nor `mac` it is the first Ethernet interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InterfaceRequest {
    /// The guest kernel's name for it, or an alternative one (altname).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub name: Option<String>,
    /// Its link-layer address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "52:54:00:12:34:56"))]
    pub mac: Option<String>,
    /// All of its addresses with their prefix lengths, at most 64; the kernel's own link-local one stays.
    /// Absent: those that are there stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 64, example = json!(["10.0.0.2/16"])))]
    pub addresses: Option<Vec<String>>,
    /// Next hops of the default routes, one a family. None beside `addresses`: default routes over this
    /// interface go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 2, example = json!(["10.0.0.1"])))]
    pub gateways: Vec<String>,
    /// Largest packet in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1280, maximum = 65535))]
    pub mtu: Option<u32>,
}

/// One route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// Destination.
    #[cfg_attr(feature = "openapi", schema(example = "10.1.0.0/16"))]
    pub to: String,
    /// Next hop. Absent: the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.9"))]
    pub via: Option<String>,
    /// Name or MAC of the interface. Absent: the one whose subnet has `via`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub interface: Option<String>,
    /// `via` is on the link although no subnet says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_link: Option<bool>,
    /// The lower, the better. Absent: the kernel's default, 0 for IPv4 and 1024 for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// Something that is looked at after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The interfaces are up and have a carrier.
    Link,
    /// The addresses are there, usable, and nobody else on the link has them.
    Addresses,
    /// The kernel reaches the next hop of each default route over its interface, without a further hop.
    Route,
    /// The next hop of each default route answers (ARP, neighbour discovery).
    Gateway,
    /// A name server answers.
    Dns,
}

/// What the agent did. An agent without `network2` says the message only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkApplied {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// The agent's own words.
    #[cfg_attr(feature = "openapi", schema(example = "network configured"))]
    pub message: String,
    /// Whether anything is, or with `dry_run` would be, different from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
    /// What is different, at most 1024 of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<NetworkDiff>>,
    /// Who has the guest's name servers: `resolv_conf`, `systemd_resolved`, `network_manager`. Absent if the
    /// request had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "systemd_resolved"))]
    pub dns_owner: Option<String>,
    /// Checks that had something to check and passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Vec<Check>>,
    /// Risks to a change that was made: a journal that could not be written, a network service of the guest
    /// that may undo the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
    /// The change waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// One difference. Without `from` something is added, without `to` it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkDiff {
    /// `link`, `mtu`, `network_manager`, `accept_ra`, `address`, `route`, `dns`, `search`, `hostname`.
    #[cfg_attr(feature = "openapi", schema(example = "address"))]
    pub what: String,
    /// Of which interface, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub interface: Option<String>,
    /// As it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// As it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.2/16"))]
    pub to: Option<String>,
}

/// A change that is put back unless it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PendingChange {
    /// To confirm it by.
    pub id: String,
    /// Milliseconds left when the agent answered.
    pub expires_in_ms: u64,
}

/// Lets a change stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkConfirmRequest {
    /// The pending change's.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub id: String,
}

/// It stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkConfirmed {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// The agent's own words.
    pub message: String,
}

/// The guest's network as its kernel has it. An agent without `network2` knows the interfaces only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Network {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// The kernel's. Guest-made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Every interface, loopback included.
    pub interfaces: Vec<Interface>,
    /// The main table, both families; at most 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// Where names are looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// A change that waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    /// Destination: `10.1.0.0/16`, `0.0.0.0/0`, `::/0`.
    #[cfg_attr(feature = "openapi", schema(example = "0.0.0.0/0"))]
    pub to: String,
    /// Next hop, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.1"))]
    pub via: Option<String>,
    /// Over which interface, if over one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub interface: Option<String>,
    /// As the kernel has it: an IPv4 route without one has 0.
    pub metric: u32,
    /// Who made it: `kernel`, `boot`, `static`, `dhcp`, `ra`, or a number.
    #[cfg_attr(feature = "openapi", schema(example = "static"))]
    pub protocol: String,
    /// The next hop is on the link although no subnet says so.
    pub on_link: bool,
}

/// The guest's resolver configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Dns {
    /// Who has it: `resolv_conf`, `systemd_resolved`, `network_manager`.
    #[cfg_attr(feature = "openapi", schema(example = "resolv_conf"))]
    pub owner: String,
    /// Name servers, in order.
    pub servers: Vec<String>,
    /// Search domains, in order.
    pub search: Vec<String>,
}
