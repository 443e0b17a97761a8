//! Base form of `configure_network`.

use super::reply::NetworkChanged;
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
