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
    /// The guest reboots: minionsd was asked for it, or the VMM has removed its socket and lives.
    Rebooting,
    /// The guest was powered off, as minionsd was asked to do.
    PoweredOff,
    /// Nothing that is known of the VM: minionsd itself is short of descriptors or memory.
    DaemonExhausted,
}

impl Failure {
    /// The failure as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSocket => "no_socket",
            Self::NoListener => "no_listener",
            Self::ConnectFailed => "connect_failed",
            Self::NoHandshake => "no_handshake",
            Self::BadHandshake => "bad_handshake",
            Self::NoAgent => "no_agent",
            Self::AgentSilent => "agent_silent",
            Self::AgentClosed => "agent_closed",
            Self::ProtocolError => "protocol_error",
            Self::AgentError => "agent_error",
            Self::Rebooting => "rebooting",
            Self::PoweredOff => "powered_off",
            Self::DaemonExhausted => "daemon_exhausted",
        }
    }
}

/// What brought a VM into its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its socket appeared.
    Found,
    /// Its agent answered a probe.
    Answered,
    /// The kernel says that nobody listens on the socket.
    NoListener,
    /// Three probes in a row failed, or one of a VM that was stale.
    ProbesFailed,
    /// Three calls in a row failed, whatever the probes said.
    CallsFailed,
    /// The VMM removed its socket and lives: the guest reboots.
    Rebooting,
}

impl Cause {
    /// The cause as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Answered => "answered",
            Self::NoListener => "no_listener",
            Self::ProbesFailed => "probes_failed",
            Self::CallsFailed => "calls_failed",
            Self::Rebooting => "rebooting",
        }
    }
}

/// What tells two VMs of the same name apart, and two lives of the same VM. What isn't known (yet) is
/// absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Incarnation {
    /// The device of the socket's filesystem.
    pub device: u64,
    /// The socket's inode.
    pub inode: u64,
    /// The process that listens on the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_pid: Option<u32>,
    /// When that process started, in clock ticks since the host booted: a pid alone is used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_start_ticks: Option<u64>,
    /// The guest kernel's id of its boot. Guest-made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The agent's id of its start. Guest-made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
}

/// The process that listens on a VM's socket: its VMM, or the VMM's vsock backend. What this daemon may
/// not see is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Vmm {
    /// Its process id.
    pub pid: u32,
    /// The kernel's short name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Resident memory, in bytes. Of `GET /vms/{vm}` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Processor time that it has used, user and system, in milliseconds. Of `GET /vms/{vm}` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}

/// Why a VM is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// The layer that failed, for programs; or `rebooting` or `powered_off`, if that is known to be why.
    pub failure: Failure,
    /// The layer that failed, if `failure` is `rebooting` or `powered_off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Failure>,
    /// Whether the guest has halted, as far as its VMM shows; of `powered_off`. False while its kernel still
    /// answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<bool>,
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
    /// Callers that wait for one of them to end.
    #[serde(default)]
    pub waiting: usize,
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
    /// What brought it there.
    pub cause: Cause,
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
    /// The last failure, also if all is well again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Reason>,
    /// Probes made since its socket was found.
    #[serde(default)]
    pub attempts: u64,
    /// When the next probe is due at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe: Option<Timestamp>,
    /// Which VM it is.
    #[serde(default)]
    pub incarnation: Incarnation,
    /// The process behind its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm: Option<Vmm>,
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
