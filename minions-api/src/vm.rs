//! What the registry knows of a VM.

use crate::health::AgentInfo;
use crate::{Timestamp, VmName};
use serde::{Deserialize, Serialize};

/// Where a VM stands, as its supervisor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Its socket was found; its agent has not answered yet.
    Connecting,
    /// Its agent answers.
    Ready,
    /// Its agent does not answer any more, or never has.
    Unreachable,
    /// The socket file is there, but nobody listens behind it: the VMM is gone.
    Stale,
}

impl VmState {
    /// The state as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Unreachable => "unreachable",
            Self::Stale => "stale",
        }
    }
}

/// The layer at which the way to an agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The socket file vanished.
    NoSocket,
    /// Nobody listens on the socket: the VMM is gone.
    NoListener,
    /// The socket can't be connected: permissions, or descriptors used up.
    ConnectFailed,
    /// The VMM took the connection and said nothing to CONNECT.
    NoHandshake,
    /// What the VMM said to CONNECT is not hybrid vsock.
    BadHandshake,
    /// The VMM closed after CONNECT: no agent listens in the guest, or the guest isn't up.
    NoAgent,
    /// The agent's port is open, but the agent says nothing.
    AgentSilent,
    /// The agent closed the connection.
    AgentClosed,
    /// What the agent says isn't the protocol.
    ProtocolError,
    /// The agent answers a health check with an error.
    AgentError,
}

/// Why a VM is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// The layer that failed, for programs.
    pub failure: Failure,
    /// The same for people, with what to look at.
    pub message: String,
    /// When it was last seen.
    pub at: Timestamp,
}

/// The connections that serve this VM's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolFigures {
    /// Handshaked and waiting for a call.
    pub idle: usize,
    /// Calls under way.
    pub in_use: usize,
    /// Calls that can be under way at once.
    pub limit: usize,
    /// Programs that are being followed; their connections are their own.
    #[serde(default)]
    pub streams: usize,
}

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Vm {
    /// Its name.
    pub name: VmName,
    /// Where it stands.
    pub state: VmState,
    /// Since when it has been in this state.
    pub since: Timestamp,
    /// Why it isn't ready; while it is, the last failed probe if the one after it hasn't succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Its socket on the host.
    pub socket: String,
    /// What its agent said of itself in the last health check. Absent for a base agent, and until
    /// it has answered once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// The guest kernel's hostname in the last health check. Guest-made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Probes that failed in a row.
    pub failed_probes: u32,
    /// When the agent last answered a probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Its connections.
    pub pool: PoolFigures,
}

/// Every VM that the registry knows, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmList {
    /// In the order of their names.
    pub vms: Vec<Vm>,
}
