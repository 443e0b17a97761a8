//! `POST /vms/{vm}/restored`.

use super::audit::AuditNote;
use super::extract::{CallParams, CallerTimeout, JsonBody, TheVm};
use super::problem::{ApiError, BodyProblems};
use crate::agent::{CallError, TransportError};
use axum::Json;
use minions_api::VmName;
use minions_api::restore::{RestoreReport, RestoredRequest};
use minions_proto::message::Feature;
use std::time::Duration;

/// Default deadline. Hooks and new SSH keys may take a minute in a slow guest.
const PATIENCE: Duration = Duration::from_secs(120);

/// Treat a guest as restored
///
/// Makes the guest the next generation and runs the restore steps, as after a restore from a
/// snapshot that the daemon notices by itself. Needed only where it cannot notice: a guest that
/// went back to a snapshot within one VMM, between two probes or while the daemon was not running.
/// Streams of programs end; the programs go on. The steps that ran and their results are in the
/// reply; `state` is `failed` if a required one failed.
#[utoipa::path(
    post, path = "/vms/{vm}/restored", operation_id = "restored_vm", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    request_body = RestoredRequest,
    responses((status = 200, description = "Steps have ended", body = RestoreReport), BodyProblems),
)]
pub(super) async fn restored_vm(
    TheVm(vm): TheVm,
    patience: CallerTimeout,
    note: AuditNote,
    JsonBody(RestoredRequest {}): JsonBody<RestoredRequest>,
) -> Result<Json<RestoreReport>, ApiError> {
    let deadline = patience.deadline_or(PATIENCE);
    let about = |error| ApiError::call(vm.name(), error);
    vm.client().check_precondition(deadline).await.map_err(about)?;
    let agent = vm.status().agent;
    if !agent.is_some_and(|agent| agent.supports(Feature::Generations)) {
        // Also waits for the first answer of the agent.
        vm.client().require(Feature::Generations, &[], deadline).await.map_err(about)?;
    }
    let Some(report) = vm.restore(deadline).await else {
        // The supervisor carries the request out as soon as the agent answers.
        return Err(about(CallError::from(TransportError::TimedOut { sent: true })));
    };
    note.outcome(|| report.state.as_str().to_owned());
    Ok(Json(report))
}
