//! `POST /declarations`: the content of a declarations file, as one change.

use super::super::audit::AuditNote;
use super::super::extract::JsonBody;
use super::super::problem::{ApiError, DeclaredProblems};
use super::super::state::ApiState;
use axum::Json;
use axum::extract::State;
use minions_api::VmName;
use minions_api::declaration::{ApplyReport, ApplyRequest};
use minions_declare::{DeclaredState, Plan};
use std::sync::Arc;

/// Remark of an apply whose result ends with the daemon.
const NOT_PERSISTENT: &str = "minionsd keeps the declared state in memory only, and loses it when it ends: start it with \
                              --state PATH";

/// Apply pools and declarations
///
/// Creates or replaces the items of the request, all of them or none. With `dry_run`, only reports what would change. With
/// `prune`, removes all other items. A repeated request changes nothing.
#[utoipa::path(
    post, path = "/declarations", operation_id = "apply_declarations", tag = "declared",
    request_body = ApplyRequest,
    responses((status = 200, description = "Result for each item", body = ApplyReport), DeclaredProblems),
)]
pub(in super::super) async fn apply_declarations(
    State(api): State<ApiState>,
    note: AuditNote,
    JsonBody(request): JsonBody<ApplyRequest>,
) -> Result<Json<ApplyReport>, ApiError> {
    let (pools, declarations) = (request.pools.len(), request.declarations.len());
    let word = if request.dry_run { "dry run: " } else { "" };
    note.subject(&format!("{word}{pools} pools, {declarations} declarations")).await?;
    let vms = api.registry.vms().unwrap_or_default();
    let names: Arc<[VmName]> = vms.keys().cloned().collect();
    let plan = move |state: &DeclaredState| {
        let (plan, report) = state.plan_apply(&request, &names)?;
        let plan = if request.dry_run { Plan::default() } else { plan };
        Ok((plan, report))
    };
    let mut report = api.declared.change(plan).await.map_err(ApiError::store)?;
    if !api.declared.is_persistent() && report.changed {
        report.warnings.push(NOT_PERSISTENT.to_owned());
    }
    note.outcome(|| if report.changed { "changed" } else { "unchanged" }.to_owned());
    Ok(Json(report))
}
