//! Richer form of `configure_network`.

use super::base::ConfigureNetwork;
use super::check::Check;
use super::reply::NetworkChanged;
use crate::message::call::Call;
use serde::{Deserialize, Serialize};

/// Request to change the network. Settings that it contains are replaced; all others stay
/// unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeNetwork {
    /// Address of the default interface with prefix length, as in the base form. Excludes
    /// `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Next hop of the default route. Requires `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Interfaces, each with all the addresses that it will have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceChange>,
    /// All routes of these interfaces, except the default routes from `gateways` and the routes to
    /// their own subnets. Absent: existing routes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<RouteChange>>,
    /// Name servers, link-local ones as `fe80::1%eth0`. Absent or empty: the resolver configuration
    /// is not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<String>>,
    /// Search domains for short names. Requires `dns`. Absent: existing domains are kept. Empty:
    /// they are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Vec<String>>,
    /// MTU in bytes, for every interface of this request without an MTU of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Hostname of the guest's kernel, until the next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Checks after the change; if one fails, everything is rolled back. Absent: with `interfaces`,
    /// all checks except `dns` that have something to check; with `ip`, none. A check that is named
    /// here and has nothing to check is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Vec<Check>>,
    /// Milliseconds after which everything is rolled back, unless the change is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_ms: Option<u64>,
    /// True to only return the differences without applying the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Configuration of an interface. With neither `name` nor `mac` it applies to the first Ethernet
/// interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceChange {
    /// Name of the interface in the guest's kernel, or an alternative one (altname).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Link-layer address of the interface, `52:54:00:12:34:56`. Excludes `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// All addresses of the interface with their prefix lengths; the kernel's own link-local
    /// address is kept. Absent: existing addresses are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// Next hops of the default routes, at most one per address family. If this is empty and
    /// `addresses` is given, default routes over this interface are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// Route to add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// Destination: `10.1.0.0/16`, `2001:db8:1::/48`, `0.0.0.0/0`, `::/0`.
    pub to: String,
    /// Next hop. Absent: the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Name or MAC address of the interface. Absent: the interface whose subnet contains `via`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// True if `via` is on the link although no subnet of the interface contains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_link: Option<bool>,
    /// Priority; lower values are preferred. Absent: the kernel's default, 0 for IPv4 and 1024 for
    /// IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

impl Call for ChangeNetwork {
    type Reply = NetworkChanged;
    const TYPE: &'static str = ConfigureNetwork::TYPE;
    const IDEMPOTENT: bool = true;
}

impl ChangeNetwork {
    /// Returns the first field that the base form does not have, if there is one.
    #[must_use]
    pub fn beyond_base(&self) -> Option<&'static str> {
        let only_dns = self.ip.is_none() && self.gateway.is_none() && self.dns.is_some();
        let fields = [
            ("interfaces", !self.interfaces.is_empty()),
            ("routes", self.routes.is_some()),
            ("search", self.search.is_some()),
            ("mtu", self.mtu.is_some()),
            ("hostname", self.hostname.is_some()),
            ("verify", self.verify.is_some()),
            ("confirm_within_ms", self.confirm_within_ms.is_some()),
            ("dry_run", self.dry_run.is_some()),
            ("dns", only_dns),
        ];
        fields.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}
