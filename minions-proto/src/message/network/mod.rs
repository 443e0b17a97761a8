//! `configure_network`: give the guest its network. `read_network`: what it has. `network_confirm`:
//! it may stay.
//!
//! The request has two forms under one name. The base form ([`ConfigureNetwork`]) is frozen; the
//! richer one ([`ChangeNetwork`]) is for agents that announce [`FEATURE`]. Both become one
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

/// The name in `features` of an agent that knows all of this but the base form.
pub const FEATURE: &str = "network2";

/// More name servers than any resolver asks (glibc stops at three).
pub const MAX_DNS_SERVERS: usize = 16;

/// More search domains than any resolver tries by default.
pub const MAX_SEARCH_DOMAINS: usize = 16;

/// Interfaces in one request.
pub const MAX_INTERFACES: usize = 16;

/// Addresses of one interface in one request.
pub const MAX_ADDRESSES: usize = 64;

/// Routes in one request.
pub const MAX_ROUTES: usize = 256;

/// Bounds of an MTU in bytes. Below the lower one the kernel takes IPv6 off the interface, and what
/// was lost with it could not be put back as it was.
pub const MTU: std::ops::RangeInclusive<u32> = 1280..=65_535;

/// Bounds of `confirm_within_ms`.
pub const CONFIRM_WITHIN_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// The base request. The guest's first Ethernet interface gets exactly this: other addresses and
/// default routes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureNetwork {
    /// Address with prefix length: `10.0.0.2/16`, `2001:db8::2/64`.
    pub ip: String,
    /// Default route, in the same family, and reachable from `ip`.
    pub gateway: String,
    /// Name servers. Empty: the guest's resolver configuration stays as it is.
    #[serde(default)]
    pub dns: Vec<String>,
}

impl Call for ConfigureNetwork {
    type Reply = NetworkChanged;
    const TYPE: &'static str = "configure_network";
    const IDEMPOTENT: bool = true;
}

impl ConfigureNetwork {
    /// Checks the whole request. Both ends do it: the host to refuse early, the guest because it
    /// trusts nobody.
    ///
    /// # Errors
    ///
    /// The first field that can't be, and what would be right.
    pub fn plan(&self) -> Result<NetworkPlan, Invalid> {
        plan::base(&self.ip, &self.gateway, &self.dns)
    }
}
