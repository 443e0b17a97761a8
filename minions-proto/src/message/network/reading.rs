//! `read_network`: the network as the guest's kernel reports it.

use super::reply::PendingChange;
use crate::message::bounded;
use crate::message::call::Call;
use crate::message::status::Interface;
use serde::{Deserialize, Serialize};

/// Request for the guest's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadNetwork {}

impl Call for ReadNetwork {
    type Reply = NetworkState;
    const TYPE: &'static str = "read_network";
    const IDEMPOTENT: bool = true;
}

/// Reply to [`ReadNetwork`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// Hostname of the guest's kernel. Written by the guest.
    pub hostname: String,
    /// All interfaces, including loopback; at most 1024.
    #[serde(deserialize_with = "bounded::list::<1024, _, _>")]
    pub interfaces: Vec<Interface>,
    /// Routes of the main table, IPv4 and IPv6; at most 1024.
    #[serde(deserialize_with = "bounded::list::<1024, _, _>")]
    pub routes: Vec<Route>,
    /// Resolver configuration.
    pub dns: Dns,
    /// Change that waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// Route in the guest's main table.
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
    /// Name of the interface, if the route has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "eth0"))]
    pub interface: Option<String>,
    /// Priority; lower values are preferred. An IPv4 route without one has 0.
    pub metric: u32,
    /// Origin of the route: `kernel`, `boot`, `static`, `dhcp`, `ra`, or a number.
    #[cfg_attr(feature = "openapi", schema(example = "static"))]
    pub protocol: String,
    /// True if the next hop is on the link although no subnet of the interface contains it.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub on_link: bool,
}

/// Resolver configuration of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Dns {
    /// Owner of the configuration: `resolv_conf`, `systemd_resolved`, `network_manager`.
    #[cfg_attr(feature = "openapi", schema(example = "resolv_conf"))]
    pub owner: String,
    /// Name servers, in order; at most 256.
    #[serde(deserialize_with = "bounded::list::<256, _, _>")]
    pub servers: Vec<String>,
    /// Search domains, in order; at most 256.
    #[serde(deserialize_with = "bounded::list::<256, _, _>")]
    pub search: Vec<String>,
}
