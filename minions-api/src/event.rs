//! What happens to VMs: `GET /events`.

use crate::vm::{Cause, Incarnation, Reason, VmState};
use crate::{Timestamp, VmName};
use serde::{Deserialize, Serialize};

/// The media type of Server-Sent Events.
pub const SSE: &str = "text/event-stream";

/// The `event:` of a [`Reset`].
pub const RESET: &str = "reset";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventKind {
    /// A socket appeared.
    #[serde(rename = "vm.found")]
    VmFound,
    /// It vanished.
    #[serde(rename = "vm.gone")]
    VmGone,
    /// The VM is in another state.
    #[serde(rename = "vm.state")]
    VmState,
    /// The name belongs to another socket, or to another process behind it.
    #[serde(rename = "vm.replaced")]
    VmReplaced,
    /// The guest booted again.
    #[serde(rename = "vm.rebooted")]
    VmRebooted,
    /// The agent started again in a guest that went on.
    #[serde(rename = "agent.restarted")]
    AgentRestarted,
}

impl EventKind {
    /// The kind as it stands in JSON, and in the stream's `event:`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VmFound => "vm.found",
            Self::VmGone => "vm.gone",
            Self::VmState => "vm.state",
            Self::VmReplaced => "vm.replaced",
            Self::VmRebooted => "vm.rebooted",
            Self::AgentRestarted => "agent.restarted",
        }
    }
}

/// One event. Its id is the stream's `id:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
    /// To which VM.
    pub vm: VmName,
    /// The state it is in; of `vm.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// The state it was in; of `vm.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<VmState>,
    /// What brought it there; of `vm.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Why it isn't ready; of `vm.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Which VM it is now; for `vm.gone`, was.
    pub incarnation: Incarnation,
}

/// Events are missing here: those that would follow the reader's last one are no longer kept, or were
/// another daemon's. `GET /vms` tells how things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reset {
    /// How many, of all VMs; absent if nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}
