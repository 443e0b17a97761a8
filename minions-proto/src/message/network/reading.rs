//! `read_network`: the network as the guest's kernel has it.

use super::PendingChange;
use crate::message::{Call, Interface, bounded};
use serde::{Deserialize, Serialize};

/// The request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadNetwork {}

impl Call for ReadNetwork {
    type Reply = NetworkState;
    const TYPE: &'static str = "read_network";
    const IDEMPOTENT: bool = true;
}

/// The reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The kernel's. Guest-made.
    pub hostname: String,
    /// Every interface, loopback included; at most 1024.
    #[serde(deserialize_with = "bounded::list::<1024, _, _>")]
    pub interfaces: Vec<Interface>,
    /// The main table, both families; at most 1024.
    #[serde(deserialize_with = "bounded::list::<1024, _, _>")]
    pub routes: Vec<Route>,
    /// Where names are looked up.
    pub dns: Dns,
    /// A change that waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// `10.1.0.0/16`, `0.0.0.0/0`, `::/0`.
    pub to: String,
    /// Next hop, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Over which interface, if over one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// As the kernel has it: an IPv4 route without one has 0.
    pub metric: u32,
    /// Who made it: `kernel`, `boot`, `static`, `dhcp`, `ra`, or a number.
    pub protocol: String,
    /// The next hop is on the link although no subnet says so.
    #[serde(default)]
    pub on_link: bool,
}

/// The resolver's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Who has it: `resolv_conf`, `systemd_resolved`, `network_manager`.
    pub owner: String,
    /// Name servers, in order; at most 256.
    #[serde(deserialize_with = "bounded::list::<256, _, _>")]
    pub servers: Vec<String>,
    /// Search domains, in order; at most 256.
    #[serde(deserialize_with = "bounded::list::<256, _, _>")]
    pub search: Vec<String>,
}
