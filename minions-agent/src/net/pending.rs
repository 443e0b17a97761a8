//! A change that waits for its confirmation.

use super::error::{ChangeError, NetworkError};
use super::snapshot::NetworkSnapshot;
use crate::boot_clock;
use minions_proto::message::{NetworkChanged, NetworkPlan, PendingChange};
use tokio::time::Instant;

/// Data to undo the change, and to answer a repeated request.
#[derive(Debug)]
pub(super) struct UnconfirmedChange {
    pub(super) id: String,
    pub(super) deadline: Instant,
    /// `None` if a previous agent made the change.
    pub(super) plan: Option<NetworkPlan>,
    pub(super) reply: NetworkChanged,
    pub(super) snapshot: NetworkSnapshot,
}

impl UnconfirmedChange {
    /// Makes the pending change that a previous agent has left.
    pub(super) fn resumed(id: String, deadline: Instant, snapshot: NetworkSnapshot) -> Self {
        Self { id, deadline, plan: None, reply: NetworkChanged::default(), snapshot }
    }

    pub(super) fn shown(&self) -> PendingChange {
        let left = self.deadline.saturating_duration_since(Instant::now());
        PendingChange { id: self.id.clone(), expires_in_ms: boot_clock::milliseconds(left) }
    }

    /// Answers a request during the wait. The same request again gets the same reply, because its sender has probably
    /// lost the first one; any other request is refused.
    pub(super) fn asked_again(&self, plan: &NetworkPlan) -> Result<NetworkChanged, ChangeError> {
        if self.plan.as_ref() != Some(plan) {
            return Err(ChangeError::untouched(NetworkError::Pending { id: self.id.clone() }));
        }
        Ok(NetworkChanged { pending: Some(self.shown()), ..self.reply.clone() })
    }
}
