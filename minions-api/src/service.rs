//! The daemon itself, and its caller: `/healthz`, `/readyz`, `/version`, `/whoami`.

use serde::{Deserialize, Serialize};

/// Liveness of the daemon. Never depends on a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Liveness {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(example = "ok"))]
    pub status: String,
}

/// Readiness of the daemon: it has scanned its directory at least once, and is not stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// Always `ready`.
    #[cfg_attr(feature = "openapi", schema(example = "ready"))]
    pub status: String,
    /// Number of VMs that the registry knows.
    pub vms: usize,
    /// Warnings for the operator of the host: a setting that weakens a promise, or a log that
    /// cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Version of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Version {
    /// Always `minionsd`.
    #[cfg_attr(feature = "openapi", schema(example = "minionsd"))]
    pub name: String,
    /// Version of minionsd.
    #[cfg_attr(feature = "openapi", schema(example = "0.1.0"))]
    pub version: String,
    /// Newest wire protocol that the daemon speaks.
    pub protocol: u32,
}

/// Permission that a route requires and a caller has. `read`: list VMs, read health, status and
/// network. `operate`: change something, such as running a program or configuring the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Reading: list, health, status, network.
    Read,
    /// Changes: exec, network, clock, power.
    Operate,
}

impl Scope {
    /// Returns the scope's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// Identity of a caller, as far as the daemon can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Identity {
    /// A user of the host, identified by the kernel.
    User {
        /// Numeric user id.
        uid: u32,
    },
    /// A caller with the bearer token.
    Token,
    /// A caller that neither the kernel nor a token identifies.
    Unknown,
}

/// Identity and permissions of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Whoami {
    /// Identity of the caller.
    pub identity: Identity,
    /// Scopes of the caller.
    pub scopes: Vec<Scope>,
}
