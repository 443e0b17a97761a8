//! Status of an agent, as its supervisor publishes it for calls.

use minions_api::vm::Failure;
use minions_proto::message::AgentInfo;
use std::sync::Arc;

/// Status of an agent. The supervisor publishes it over a `watch` channel, which closes when the VM is gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentStatus {
    pub(crate) access: CallAccess,
    /// Last description that the agent sent of itself; `None` for a base agent, and before the first answer.
    pub(crate) info: Option<Arc<AgentInfo>>,
}

/// Decision whether calls may be sent.
#[derive(Debug, Clone, Default)]
pub(crate) enum CallAccess {
    /// The first probe is still in progress: calls wait for its result.
    #[default]
    Undecided,
    /// Calls are sent.
    Allowed,
    /// Calls are refused.
    Refused(RefusalReason),
}

/// Reason why calls are refused.
#[derive(Debug, Clone)]
pub(crate) struct RefusalReason {
    pub(crate) failure: Failure,
    pub(crate) message: String,
}

impl RefusalReason {
    /// Returns the reason for a VM that is gone.
    pub(crate) fn vanished() -> Self {
        Self { failure: Failure::NoSocket, message: "the socket file vanished".into() }
    }
}
