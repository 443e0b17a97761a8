//! Base form of `configure_network`.

use super::plan::{self, NetworkPlan};
use super::reply::NetworkChanged;
use crate::error::Invalid;
use crate::message::call::Call;
use serde::{Deserialize, Serialize};

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
