//! `POST /vms/{vm}/quiesce` and `/thaw`.

use super::audit::AuditNote;
use super::extract::{CallParams, CallerTimeout, JsonBody, QueryParams, TheVm};
use super::problem::{ApiError, QuiesceProblems, ThawProblems};
use crate::agent::Lane;
use axum::Json;
use minions_api::VmName;
use minions_api::quiesce::{GuestQuiesced, GuestThawed, QuiesceRequest};
use minions_proto::message::{Feature, MAX_TTL_MS, Quiesce, QuiesceLease, Quiesced, Thaw, Thawed};
use serde::Deserialize;
use std::time::Duration;

/// Time limit of the agent for all hooks of one directory together.
const HOOKS: Duration = Duration::from_secs(60);

/// Time for the steps without a limit of their own.
const MARGIN: Duration = Duration::from_secs(15);

/// Longest id of a quiesce that is passed to an agent.
const MAX_ID_LEN: usize = 128;

/// Quiesce a guest for a snapshot
///
/// Runs the freeze hooks of the guest's owner, syncs the file systems, and freezes them with `freeze_fs`. Until the
/// thaw, the guest answers only health, status and thaw; other calls get `quiesced`. When the lease ends, the agent thaws
/// the guest by itself. If a step fails, the guest is thawed, and the problem is `quiesce_failed`.
#[utoipa::path(
    post, path = "/vms/{vm}/quiesce", operation_id = "quiesce_vm", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    request_body = QuiesceRequest,
    responses((status = 200, description = "Guest quiesced", body = GuestQuiesced), QuiesceProblems),
)]
pub(super) async fn quiesce_vm(
    TheVm(vm): TheVm,
    patience: CallerTimeout,
    note: AuditNote,
    JsonBody(request): JsonBody<QuiesceRequest>,
) -> Result<Json<GuestQuiesced>, ApiError> {
    let QuiesceRequest { ttl_ms, freeze_fs, hooks } = request;
    let call = Quiesce { ttl_ms, freeze_fs, hooks };
    let lease = call.ttl_ms();
    let lease = lease.map_err(|invalid| ApiError::invalid(&invalid).about(vm.name().clone()))?;
    // The hooks before the freeze, the freeze itself, and after a failed freeze the thaw hooks.
    let longest = 2 * HOOKS + Duration::from_millis(lease) + MARGIN;
    let deadline = patience.deadline_or(longest);
    let about = |error| ApiError::call(vm.name(), error);
    vm.client().require(Feature::Quiesce, &[], deadline).await.map_err(about)?;
    // Not the lane of quick calls, because the hooks may take long.
    let quiesced = vm.client().call(&call, Lane::Stream, deadline).await.map_err(about)?;
    let Quiesced { id, lease_ms, frozen, not_frozen, hooks } = quiesced;
    let lease_ms = lease_ms.min(MAX_TTL_MS);
    let quiesced_until = vm.lease().begin(QuiesceLease { id: id.clone(), lease_ms });
    note.outcome(|| format!("quiesced, {} file systems frozen", frozen.len()));
    let status = "ok".into();
    Ok(Json(GuestQuiesced { status, id, lease_ms, quiesced_until, frozen, not_frozen, hooks }))
}

/// Query of a thaw.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ThawParams {
    /// Id of the quiesce to end, from the reply to it. Absent: ends any.
    #[param(max_length = 128)]
    id: Option<String>,
    /// Milliseconds after which the caller gets an `agent_timeout` instead of an answer.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Thaw a guest
///
/// Ends a quiesce: thaws the file systems and runs the thaw hooks of the guest's owner. `not_quiesced` means that
/// there was nothing to thaw; if a quiesce had begun, its lease has ended, or another process in the guest has thawed the
/// file systems, and a snapshot that was not complete before is not consistent. The same applies to a reply with `already`
/// if the caller has not sent the request before: another caller has ended the quiesce.
#[utoipa::path(
    post, path = "/vms/{vm}/thaw", operation_id = "thaw_vm", tag = "guest",
    params(("vm" = VmName, Path), ThawParams),
    responses((status = 200, description = "Guest thawed", body = GuestThawed), ThawProblems),
)]
pub(super) async fn thaw_vm(
    TheVm(vm): TheVm,
    QueryParams(params): QueryParams<ThawParams>,
) -> Result<Json<GuestThawed>, ApiError> {
    let deadline = CallerTimeout::of(params.timeout_ms)?.deadline_or(HOOKS + MARGIN);
    if params.id.as_ref().is_some_and(|id| id.len() > MAX_ID_LEN) {
        let message =
            format!("`id` is longer than {MAX_ID_LEN} bytes: use the `id` of the reply to quiesce");
        return Err(ApiError::malformed(Some("id".into()), message).about(vm.name().clone()));
    }
    let about = |error| ApiError::call(vm.name(), error);
    vm.client().require(Feature::Quiesce, &[], deadline).await.map_err(about)?;
    let thawed = vm.client().call(&Thaw { id: params.id }, Lane::Stream, deadline).await;
    let Thawed { id, quiesced_ms, thawed, hooks, already } = thawed.map_err(about)?;
    vm.lease().end();
    let status = "ok".into();
    Ok(Json(GuestThawed { status, id, quiesced_ms, thawed, hooks, already }))
}
