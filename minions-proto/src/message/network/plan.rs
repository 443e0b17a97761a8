//! Network changes in which every value has been checked, alone and against the others.

use super::check::Check;
use crate::cidr::InterfaceAddress;
use crate::name_server::ServerAddress;
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// Network configuration to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Interfaces with their complete new settings.
    pub interfaces: Vec<InterfacePlan>,
    /// Routes of these interfaces, except default routes and routes to their own subnets. `None`:
    /// not changed.
    pub routes: Option<Vec<RoutePlan>>,
    /// Resolver configuration. `None`: not changed.
    pub dns: Option<DnsPlan>,
    /// Hostname. `None`: not changed.
    pub hostname: Option<String>,
    /// Checks after the change, in the order of [`Check::ALL`].
    pub checks: Vec<Check>,
    /// True if the request names the checks. A named check that has nothing to check makes the
    /// request invalid; a default check is left out.
    pub checks_named: bool,
    /// Time within which the change must be confirmed. `None`: it needs no confirmation.
    pub confirm_within: Option<Duration>,
    /// True to only compare, without applying the change.
    pub dry_run: bool,
}

/// Settings of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfacePlan {
    /// Path in the request: `interfaces[0]`. Empty in the base form.
    pub field: String,
    /// Selects the interface.
    pub selector: Selector,
    /// All addresses of the interface. `None`: not changed.
    pub addresses: Option<Vec<InterfaceAddress>>,
    /// Next hops of default routes, at most one per address family.
    pub gateways: Vec<IpAddr>,
    /// MTU in bytes. `None`: not changed.
    pub mtu: Option<u32>,
}

/// Selector of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The first Ethernet interface.
    Default,
    /// The interface with this name in the kernel.
    Name(String),
    /// The interface with this link-layer address.
    Mac([u8; 6]),
}

/// Route to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePlan {
    /// Path in the request: `routes[3]`.
    pub field: String,
    /// Destination, without bits set after its prefix.
    pub to: IpNet,
    /// Next hop, of the same address family.
    pub via: Option<IpAddr>,
    /// Selects the interface.
    pub selector: Selector,
    /// True if the next hop is on the link although no subnet of the interface contains it.
    pub on_link: bool,
    /// Priority as the kernel will store it: 1024 for an IPv6 route without one.
    pub metric: u32,
}

/// Resolver configuration to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsPlan {
    /// Name servers, in order of preference; at least one. A link-local server without a zone
    /// belongs to the only interface of the request.
    pub servers: Vec<ServerAddress>,
    /// Search domains, in order. `None`: not changed.
    pub search: Option<Vec<String>>,
}
