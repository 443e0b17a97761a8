//! `GET` and `PUT /vms/{vm}/network`.

use crate::status::Interface;
use serde::{Deserialize, Serialize};

/// The guest's first Ethernet interface gets exactly this: other addresses and default routes go.
/// Doing it twice is doing it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Address with prefix length.
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.2/16"))]
    pub ip: String,
    /// Next hop of the default route, inside the subnet of `ip` (or IPv6 link-local).
    #[cfg_attr(feature = "openapi", schema(example = "10.0.0.1"))]
    pub gateway: String,
    /// Name servers, at most 16. None: the guest's resolver configuration stays as it is.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 16, example = json!(["1.1.1.1"])))]
    pub dns: Vec<String>,
}

/// What the agent did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkApplied {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// The agent's own words.
    #[cfg_attr(feature = "openapi", schema(example = "network configured"))]
    pub message: String,
}

/// The guest's network as its kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Network {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
    /// Every interface, loopback included.
    pub interfaces: Vec<Interface>,
}
