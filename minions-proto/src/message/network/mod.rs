//! `configure_network` configures the guest's network, `network_confirm` makes a change permanent,
//! `read_network` reads the network.
//!
//! `configure_network` has two forms. The base form ([`ConfigureNetwork`]) is frozen; the richer
//! form ([`ChangeNetwork`]) is for agents that announce [`Feature::Network`](super::Feature::Network). Both are converted to a
//! [`NetworkPlan`], in which every value has been checked.

mod change;
mod plan;
mod reading;
mod reply;
mod routes;

pub use change::{ChangeNetwork, Check, InterfaceChange, RouteChange};
pub use plan::{DnsPlan, InterfacePlan, NetworkPlan, RoutePlan, Selector};
pub use reading::{Dns, NetworkState, ReadNetwork, Route};
pub use reply::{NetworkChanged, NetworkConfirm, NetworkDiff, PendingChange};

use super::Call;
use crate::error::Invalid;
use serde::{Deserialize, Serialize};

/// Largest number of name servers in a request; no resolver uses as many (glibc uses three).
pub const MAX_DNS_SERVERS: usize = 16;

/// Largest number of search domains in a request; by default no resolver uses as many.
pub const MAX_SEARCH_DOMAINS: usize = 16;

/// Largest number of interfaces in a request.
pub const MAX_INTERFACES: usize = 16;

/// Largest number of addresses of one interface in a request.
pub const MAX_ADDRESSES: usize = 64;

/// Largest number of routes in a request.
pub const MAX_ROUTES: usize = 256;

/// Bounds of an MTU, in bytes. Below the lower bound the kernel removes IPv6 from the interface,
/// and its state could not be restored.
pub const MTU: std::ops::RangeInclusive<u32> = 1280..=65_535;

/// Bounds of `confirm_within_ms`: 1 second to 1 hour.
pub const CONFIRM_WITHIN_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// Base form of the request. The guest's first Ethernet interface gets exactly this address and
/// this default route; its other addresses and default routes are removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureNetwork {
    /// Address with prefix length: `10.0.0.2/16`, `2001:db8::2/64`.
    pub ip: String,
    /// Next hop of the default route, of the same address family and reachable from `ip`.
    pub gateway: String,
    /// Name servers. Empty: the guest's resolver configuration is not changed.
    #[serde(default)]
    pub dns: Vec<String>,
}

impl Call for ConfigureNetwork {
    type Reply = NetworkChanged;
    const TYPE: &'static str = "configure_network";
    const IDEMPOTENT: bool = true;
}

impl ConfigureNetwork {
    /// Checks the whole request. Both ends call it: the host to reject early, the guest because it
    /// does not trust the host's check.
    ///
    /// # Errors
    ///
    /// The first invalid field, and what would be right.
    pub fn plan(&self) -> Result<NetworkPlan, Invalid> {
        plan::base(&self.ip, &self.gateway, &self.dns)
    }
}

/// Checks the length of a list.
fn at_most(field: &str, what: &str, count: usize, most: usize) -> Result<(), Invalid> {
    if count <= most {
        return Ok(());
    }
    Err(Invalid::new(field, format!("has {count} {what}; give at most {most}")))
}
