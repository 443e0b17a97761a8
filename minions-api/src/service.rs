//! The daemon about itself, and about its caller: `/healthz`, `/readyz`, `/version`, `/whoami`.

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
    /// Warnings for the operator of the host: a setting that weakens a promise, a log that cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
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

/// What a route needs, and what a caller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look: list, health, status, network.
    Read,
    /// Change something: exec, network.
    Operate,
}

impl Scope {
    /// The scope as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// Who a caller is, as far as the daemon can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Identity {
    /// A user of this machine: the kernel says so.
    User {
        /// Numeric.
        uid: u32,
    },
    /// Whoever has the bearer token.
    Token,
    /// Nobody that the kernel knows.
    Unknown,
}

/// `GET /whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Whoami {
    /// Who you are.
    pub identity: Identity,
    /// What you may do.
    pub scopes: Vec<Scope>,
}
