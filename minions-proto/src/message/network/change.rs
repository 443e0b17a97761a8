//! The richer form of `configure_network`.

use super::{ConfigureNetwork, NetworkChanged, NetworkPlan, plan};
use crate::error::Invalid;
use crate::message::Call;
use serde::{Deserialize, Serialize};

/// The request. What it names is replaced; what it doesn't name stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeNetwork {
    /// As in the base form: the one address of the default interface. Instead of `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Goes with `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Interfaces, each with all the addresses that it shall have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceChange>,
    /// All routes of these interfaces, default routes and those to their own subnets aside. Absent:
    /// those that are there stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<RouteChange>>,
    /// Name servers, link-local ones as `fe80::1%eth0`. Absent or empty: the resolver configuration stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<String>>,
    /// Domains in which short names are looked up. Needs `dns`. Absent: they stay; empty: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Vec<String>>,
    /// For every interface of this request that has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The kernel's hostname, until the next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Checks after the change; if one fails, everything is put back. Absent: with `interfaces`, all except
    /// `dns` that have something to check; with `ip`, none. A check that is named here and has nothing to
    /// check is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Vec<Check>>,
    /// Everything is put back after so long, unless the change is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_ms: Option<u64>,
    /// Only say what would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// One interface. With neither `name` nor `mac` it is the first Ethernet interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceChange {
    /// The kernel's name for it, or an alternative one (altname).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its link-layer address, `52:54:00:12:34:56`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// All of its addresses with their prefix lengths; the kernel's own link-local one stays. Absent:
    /// those that are there stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// Next hops of the default routes, one a family. None beside `addresses`: default routes over
    /// this interface go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// Largest packet, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// One route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// `10.1.0.0/16`, `2001:db8:1::/48`, `0.0.0.0/0`, `::/0`.
    pub to: String,
    /// Next hop. Absent: the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Name or MAC of the interface. Absent: the one whose subnet has `via`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `via` is on the link although no subnet says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_link: Option<bool>,
    /// The lower, the better. Absent: the kernel's default, 0 for IPv4 and 1024 for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// Something that is looked at after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

impl Check {
    /// In the order in which they are made.
    pub const ALL: [Self; 5] = [Self::Link, Self::Addresses, Self::Route, Self::Gateway, Self::Dns];

    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Addresses => "addresses",
            Self::Route => "route",
            Self::Gateway => "gateway",
            Self::Dns => "dns",
        }
    }
}

impl Call for ChangeNetwork {
    type Reply = NetworkChanged;
    const TYPE: &'static str = ConfigureNetwork::TYPE;
    const IDEMPOTENT: bool = true;
}

impl ChangeNetwork {
    /// The first field that the base form doesn't have, if there is one.
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

    /// Checks the whole request, as far as that is possible without looking at the guest.
    ///
    /// # Errors
    ///
    /// The first field that can't be, and what would be right.
    pub fn plan(&self) -> Result<NetworkPlan, Invalid> {
        plan::rich(self)
    }
}
