//! `quiesce` and `thaw`.

use crate::quiesce::QuiesceControl;
use minions_proto::AgentError;
use minions_proto::message::{Quiesce, Quiesced, Thaw, Thawed};

/// Dropping the future thaws the guest.
pub(super) async fn quiesce(
    quiescer: &QuiesceControl,
    call: Quiesce,
) -> Result<Quiesced, AgentError> {
    quiescer.quiesce(call).await.map_err(Into::into)
}

/// Dropping the future does not stop the thaw.
pub(super) async fn thaw(quiescer: &QuiesceControl, call: Thaw) -> Result<Thawed, AgentError> {
    quiescer.thaw(call).await.map_err(Into::into)
}
