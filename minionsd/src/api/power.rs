//! `POST /vms/{vm}/power`.

use super::extract::{CallParams, JsonBody, Patience, TheVm};
use super::problem::{ApiError, BodyProblems};
use crate::agent::Lane;
use axum::Json;
use axum::http::StatusCode;
use minions_api::VmName;
use minions_api::power::{self, PowerAccepted, PowerRequest};
use minions_proto::message::{Feature, Power, PowerAction};
use std::time::Duration;

/// Default deadline: the agent answers before it acts.
const PATIENCE: Duration = Duration::from_secs(5);

/// Power off or reboot a guest
///
/// The reply is sent before it happens. `GET /vms/{vm}` and `GET /events` show the result.
#[utoipa::path(
    post, path = "/vms/{vm}/power", operation_id = "power_vm", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    request_body = PowerRequest,
    responses((status = 202, description = "Accepted", body = PowerAccepted), BodyProblems),
)]
pub(super) async fn power_vm(
    TheVm(vm): TheVm,
    patience: Patience,
    JsonBody(request): JsonBody<PowerRequest>,
) -> Result<(StatusCode, Json<PowerAccepted>), ApiError> {
    let deadline = patience.deadline_or(PATIENCE);
    let client = vm.client();
    let about = |error| ApiError::call(vm.name(), error);
    client.require(Feature::Power, &[], deadline).await.map_err(about)?;
    let PowerRequest { action, force } = request;
    let action = match action {
        power::PowerAction::Poweroff => PowerAction::Poweroff,
        power::PowerAction::Reboot => PowerAction::Reboot,
    };
    let done = client.call(&Power { action, force }, Lane::Quick, deadline).await.map_err(about)?;
    let accepted = PowerAccepted { status: "ok".into(), message: done.message };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}
