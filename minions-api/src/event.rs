//! Changes of VMs: `GET /events`.

use crate::declaration::{ConfigCondition, ConfigState};
use crate::timestamp::Timestamp;
use crate::vm::{Cause, Incarnation, Reason, VmState};
use crate::vm_name::VmName;
use serde::{Deserialize, Serialize};

/// Media type of Server-Sent Events.
pub const SSE: &str = "text/event-stream";

/// Value of `event:` for a [`Reset`].
pub const RESET: &str = "reset";

/// Kind of an event. `vm.found`: a socket appeared. `vm.gone`: a socket vanished. `vm.state`: the
/// VM changed its state. `vm.replaced`: the name belongs to another socket, or another process
/// listens on it. `vm.rebooted`: the guest booted again. `agent.restarted`: the agent was
/// restarted, and the guest was not. `vm.restored`: the guest was restored from a snapshot.
/// `vm.cloned`: the same, and the guest that was saved runs under another name. `vm.configured`:
/// the VM's agreement with its declarations changed; `pending` after a change of declarations or
/// pools is no event, its result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventKind {
    /// A socket appeared.
    #[serde(rename = "vm.found")]
    VmFound,
    /// A socket vanished.
    #[serde(rename = "vm.gone")]
    VmGone,
    /// The VM changed its state.
    #[serde(rename = "vm.state")]
    VmState,
    /// The name belongs to another socket, or another process listens on it.
    #[serde(rename = "vm.replaced")]
    VmReplaced,
    /// The guest booted again.
    #[serde(rename = "vm.rebooted")]
    VmRebooted,
    /// The agent was restarted, and the guest was not.
    #[serde(rename = "agent.restarted")]
    AgentRestarted,
    /// The guest was restored from a snapshot: it has another instance id.
    #[serde(rename = "vm.restored")]
    VmRestored,
    /// The guest was restored from a snapshot of a guest that runs under another name.
    #[serde(rename = "vm.cloned")]
    VmCloned,
    /// The VM's agreement with its declarations changed.
    #[serde(rename = "vm.configured")]
    VmConfigured,
}

impl EventKind {
    /// Returns the kind's name in JSON and in the stream's `event:`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VmFound => "vm.found",
            Self::VmGone => "vm.gone",
            Self::VmState => "vm.state",
            Self::VmReplaced => "vm.replaced",
            Self::VmRebooted => "vm.rebooted",
            Self::AgentRestarted => "agent.restarted",
            Self::VmRestored => "vm.restored",
            Self::VmCloned => "vm.cloned",
            Self::VmConfigured => "vm.configured",
        }
    }
}

/// Change of a VM. The stream's `id:` is the id of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Kind of the event.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Time of the event.
    pub at: Timestamp,
    /// Name of the VM.
    pub vm: VmName,
    /// New state; only in `vm.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// Previous state; only in `vm.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<VmState>,
    /// Reason for the change of state; only in `vm.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Reason why the VM is not ready; only in `vm.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Instance id of the guest that was saved; only in `vm.restored` and `vm.cloned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Name of the VM with that instance id; only in `vm.cloned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_vm: Option<VmName>,
    /// Agreement of the VM with its declarations; only in `vm.configured`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<ConfigState>,
    /// Details of `configured`; only in `vm.configured`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigCondition>,
    /// Identity of the VM after the event, or before it for `vm.gone`.
    pub incarnation: Incarnation,
}

/// Marks missing events in the stream: the events after the client's last one are no longer kept,
/// or the client's id is from another run of the daemon. Read `GET /vms` after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reset {
    /// Number of missing events, of all VMs. Absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}
