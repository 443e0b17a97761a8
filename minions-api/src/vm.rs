//! The registry's knowledge of VMs.

use crate::declaration::{ConfigCondition, ConfigState};
use crate::health::AgentInfo;
use crate::label::Labels;
use crate::restore::RestoreReport;
use crate::timestamp::Timestamp;
use crate::vm_name::VmName;
use serde::{Deserialize, Serialize};

/// State of a VM, as its supervisor sees it. `connecting`: its socket was found, and its agent has
/// not answered yet. `ready`: its agent answers. `unreachable`: its agent does not answer, or never
/// has. `stale`: the socket file exists, but no process listens on it, so the VMM is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// The socket was found; the agent has not answered yet.
    Connecting,
    /// The agent answers.
    Ready,
    /// The agent no longer answers, or never has.
    Unreachable,
    /// The socket file exists, but no process listens on it: the VMM is gone.
    Stale,
}

impl VmState {
    /// Returns the state's name in JSON.
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

/// Layer at which the connection to an agent fails. docs/OPERATIONS.md explains each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The socket file vanished.
    NoSocket,
    /// The socket has no listening process: the VMM is gone.
    NoListener,
    /// Connecting to the socket failed: missing permissions, or no free descriptors.
    ConnectFailed,
    /// The VMM accepted the connection and did not answer CONNECT.
    NoHandshake,
    /// The VMM's answer to CONNECT is not hybrid vsock.
    BadHandshake,
    /// The VMM closed the connection after CONNECT: no agent listens in the guest, or the guest has
    /// not booted.
    NoAgent,
    /// The agent's port is open, but the agent does not answer.
    AgentSilent,
    /// The agent closed the connection.
    AgentClosed,
    /// The agent's data violates the protocol.
    ProtocolError,
    /// The agent answers a health check with an error.
    AgentError,
    /// The guest is rebooting: minionsd was asked for it, or the VMM has removed its socket and its process continues.
    Rebooting,
    /// The guest was powered off, as minionsd was asked to do.
    PoweredOff,
    /// The guest was restored or cloned, and the restore steps run.
    Restoring,
    /// The guest was restored or cloned, and a required restore step failed.
    RestoreFailed,
    /// The VMM's process runs, but the guest, which has answered before, does not answer any more: the VM is paused, or
    /// it or its agent hangs.
    PausedOrHung,
    /// minionsd itself is short of descriptors or memory; this says nothing about the VM.
    DaemonExhausted,
}

impl Failure {
    /// Returns the failure's name in JSON.
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
            Self::Restoring => "restoring",
            Self::RestoreFailed => "restore_failed",
            Self::PausedOrHung => "paused_or_hung",
            Self::DaemonExhausted => "daemon_exhausted",
        }
    }

    /// Returns what to do, for people.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoSocket => "start the VM, with this vsock socket",
            Self::NoListener => {
                "the VMM has ended and its socket file remains: remove the file, then start the VM"
            }
            Self::ConnectFailed => {
                "if permission is denied, give minionsd's user access to the socket (mode, group); \
                 if the VMM does not accept connections, check the VMM"
            }
            Self::NoHandshake => {
                "wait if the guest is booting, resume it if it is paused; otherwise check its console"
            }
            Self::BadHandshake => {
                "the listener does not speak hybrid vsock: give the VM a socket of its own"
            }
            Self::NoAgent => {
                "wait if the guest is booting; otherwise install minions-agent \
                 (deploy/install-agent), or check that the guest has /dev/vsock, and that the agent \
                 uses the same port (agent_port)"
            }
            Self::AgentSilent | Self::AgentClosed => {
                "the agent or the guest hangs: check the guest's console; its service manager \
                 restarts an agent that hangs"
            }
            Self::ProtocolError => {
                "another program listens on the agent's port in the guest: stop it, or set \
                 agent_port in minionsd.toml to the port of minions-agent"
            }
            Self::AgentError => {
                "follow the agent's message, or restart the agent; check its log in the guest"
            }
            Self::Rebooting => "wait until the guest has booted (`minionsctl wait VM`)",
            Self::PoweredOff => "start the VM",
            Self::Restoring => "wait until the restore steps have ended",
            Self::RestoreFailed => {
                "remove the cause, then run `minionsctl restored VM`; or remove the step from `required` \
                 in minionsd.toml"
            }
            Self::PausedOrHung => {
                "resume the VM if it is paused; otherwise check the guest's console: its service manager restarts \
                 an agent that hangs"
            }
            Self::DaemonExhausted => {
                "minionsd is out of descriptors or memory: raise its limits (LimitNOFILE=)"
            }
        }
    }
}

/// Reason for a VM's last change of state. `found`: its socket appeared. `answered`: its agent
/// answered a probe. `no_listener`: the kernel reports that no process listens on the socket.
/// `probes_failed`: three probes in a row failed, or one probe of a stale VM. `calls_failed`: three
/// calls in a row failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The socket appeared.
    Found,
    /// The agent answered a probe.
    Answered,
    /// The kernel reports that no process listens on the socket.
    NoListener,
    /// Three probes in a row failed, or one probe of a stale VM.
    ProbesFailed,
    /// Three calls in a row failed, regardless of the probes.
    CallsFailed,
    /// The VMM removed its socket and lives: the guest reboots.
    Rebooting,
    /// The guest was restored or cloned, and the restore steps have not succeeded yet.
    Restoring,
}

impl Cause {
    /// Returns the cause's name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Answered => "answered",
            Self::NoListener => "no_listener",
            Self::ProbesFailed => "probes_failed",
            Self::CallsFailed => "calls_failed",
            Self::Rebooting => "rebooting",
            Self::Restoring => "restoring",
        }
    }
}

/// Identity of a VM: distinguishes VMs that have the same name at different times, and the boots of
/// one VM. Fields that are not known (yet) are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Incarnation {
    /// Opaque id of boot and instance, for `If-Incarnation`. Absent for a base agent, and until the agent has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "1f6a6e0c1d3b4f5a9c8e7d6b5a493827"))]
    pub id: Option<String>,
    /// Device number of the socket's filesystem.
    pub device: u64,
    /// Inode number of the socket.
    pub inode: u64,
    /// Process id of the process that listens on the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_pid: Option<u32>,
    /// Start of that process, in clock ticks since the host booted; tells processes with the same
    /// id apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_start_ticks: Option<u64>,
    /// Id that the guest's kernel gave to its boot. Written by the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Id of the agent's start, or of the guest's generation after a restore. Written by the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Number of the guest's generation. Written by the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// Process that listens on a VM's socket: its VMM, or the VMM's vsock backend. Fields that the
/// daemon has no permission to read are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Vmm {
    /// Process id.
    pub pid: u32,
    /// Short name of the process in the kernel (`comm`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Resident memory, in bytes. Only in `GET /vms/{vm}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Processor time used, user and system, in milliseconds. Only in `GET /vms/{vm}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}

/// Reason why a VM is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// Layer that failed, for programs; `rebooting` or `powered_off` if a known reboot or poweroff is the cause;
    /// `paused_or_hung` if the VMM runs and the guest has stopped answering.
    pub failure: Failure,
    /// Layer that failed, if `failure` is `rebooting`, `powered_off` or `paused_or_hung`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Failure>,
    /// State of a guest that was powered off: true if it has halted, as far as its VMM shows; false while its kernel
    /// still answers. Only with `powered_off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<bool>,
    /// Description of the failure for people, with advice.
    pub message: String,
    /// Time at which the failure was last seen.
    pub at: Timestamp,
}

/// Times of the current boot, as the daemon saw it. After a restart of the daemon, they begin when it found the VM
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({
    "vmm_seen_at": "2026-01-31T12:00:00.000Z",
    "connected_at": "2026-01-31T12:00:01.750Z",
    "announced_at": "2026-01-31T12:00:02.100Z",
    "ready_at": "2026-01-31T12:00:02.104Z",
    "configured_at": "2026-01-31T12:00:02.300Z"
})))]
pub struct BootTimeline {
    /// Time at which the VM's socket was found, or found again after its VMM had removed it. After a reset within the
    /// VMM, that of the first boot.
    pub vmm_seen_at: Timestamp,
    /// Time of the first answer to `CONNECT`: the guest has a listener on the agent's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<Timestamp>,
    /// Time of the agent's first announcement. Absent for agents that do not announce themselves. Until `ready_at` is
    /// known, any guest can cause this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_at: Option<Timestamp>,
    /// Time at which the agent answered a probe for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// Time at which the guest had its declared configuration for the first time. Absent if nothing is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured_at: Option<Timestamp>,
}

/// Use of the connections to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolFigures {
    /// Idle connections, ready for a call.
    pub idle: usize,
    /// Calls in progress.
    pub in_use: usize,
    /// Largest number of calls in progress at the same time.
    pub limit: usize,
    /// Callers that wait for a connection.
    #[serde(default)]
    pub waiting: usize,
    /// Streams of programs; each has a connection of its own, which `limit` does not count.
    #[serde(default)]
    pub streams: usize,
}

/// State of a VM. Reading it never contacts the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Vm {
    /// Name of the VM.
    pub name: VmName,
    /// Current state.
    pub state: VmState,
    /// Time of the last change of state.
    pub since: Timestamp,
    /// Reason for the last change of state.
    pub cause: Cause,
    /// Reason why the VM is not ready. A `ready` VM has a reason if its last probe failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Path of the VM's socket on the host.
    pub socket: String,
    /// VSOCK port on which the daemon expects the agent.
    #[serde(default = "default_agent_port")]
    #[cfg_attr(feature = "openapi", schema(value_type = i64, minimum = 1, maximum = 4_294_967_294_i64))]
    pub agent_port: u32,
    /// Agent that answered the last health check. Absent for a base agent, and until the agent has
    /// answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// Hostname of the guest's kernel in the last health check. Written by the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// End of the lease of a quiesce, as far as the daemon knows it. Absent: the guest is not quiesced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesced_until: Option<Timestamp>,
    /// Number of probes in a row that failed.
    pub failed_probes: u32,
    /// Time at which the agent last answered a probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Last failure, kept after the VM has recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Reason>,
    /// Number of probes since the socket was found.
    #[serde(default)]
    pub attempts: u64,
    /// Timeline of the current boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootTimeline>,
    /// Latest time of the next probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe: Option<Timestamp>,
    /// Identity of the VM.
    #[serde(default)]
    pub incarnation: Incarnation,
    /// Process that listens on the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm: Option<Vmm>,
    /// Last restore of the guest that this daemon has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreReport>,
    /// Use of the connections to the VM.
    pub pool: PoolFigures,
    /// Labels from the VM's declarations.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Agreement of the VM with its declarations. Absent if they have no settings for its guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<ConfigState>,
    /// Details of `configured`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigCondition>,
}

/// Returns the port of a daemon that does not report it.
fn default_agent_port() -> u32 {
    1024
}

/// All VMs that the registry knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmList {
    /// VMs, sorted by name.
    pub vms: Vec<Vm>,
}
