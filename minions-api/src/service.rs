//! The daemon about itself: `/healthz`, `/readyz`, `/version`.

use serde::{Deserialize, Serialize};

/// `GET /healthz`: the daemon is alive. Never depends on a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Liveness {
    /// `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
}

/// `GET /readyz`: the registry has seen its directory at least once, and nobody has asked the
/// daemon to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// `ready`.
    #[cfg_attr(feature = "openapi", schema(example = "ready"))]
    pub status: String,
    /// VMs known.
    pub vms: usize,
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Version {
    /// `minionsd`.
    #[cfg_attr(feature = "openapi", schema(example = "minionsd"))]
    pub name: String,
    /// Its version.
    #[cfg_attr(feature = "openapi", schema(example = "0.1.0"))]
    pub version: String,
    /// The newest wire protocol that it speaks.
    pub protocol: u32,
}
