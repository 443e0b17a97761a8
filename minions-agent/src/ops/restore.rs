//! `restore`: begins the next generation of the guest, and runs the restore steps.

use crate::agent::Agent;
use crate::generation::{self, RestoreAction};
use minions_proto::AgentError;
use minions_proto::message::{RestoreOutcome, RestoreRequest};
use std::sync::Arc;

/// Answers the request. Steps that have begun are completed even if the host disconnects.
pub(super) async fn answer(
    agent: &Agent,
    call: RestoreRequest,
) -> Result<RestoreOutcome, AgentError> {
    call.validate()?;
    let parent = call.parent.clone();
    let action = agent.generations().begin(&call)?;
    let run = match action {
        RestoreAction::Begin { run, ended } => {
            agent.executor().begin_generation(ended);
            Some(run)
        }
        RestoreAction::Repeat { run } => Some(run),
        RestoreAction::Report => None,
    };
    if let Some(run) = run {
        crate::task::spawn(generation::run(agent.clone(), Arc::new(call), run));
    }
    Ok(agent.generations().report(&parent).await)
}
