//! `PUT /vms/{vm}/clock`.

use super::extract::{CallParams, CallerTimeout, JsonBody, TheVm};
use super::problem::{ApiError, BodyProblems};
use crate::agent::Lane;
use crate::clock::unix_ms;
use axum::Json;
use minions_api::VmName;
use minions_api::clock::{ClockRequest, ClockSet};
use minions_proto::message::{Feature, SetClock};
use std::time::{Duration, SystemTime};

/// Default deadline: the agent makes one system call.
const PATIENCE: Duration = Duration::from_secs(5);

/// Set the clock of a guest
///
/// Sets it to the host's time if the body is `{}`. The clock of a guest that was paused, or
/// restored from a snapshot, is late by the time of the pause.
#[utoipa::path(
    put, path = "/vms/{vm}/clock", operation_id = "put_clock", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    request_body = ClockRequest,
    responses((status = 200, description = "Clock set", body = ClockSet), BodyProblems),
)]
pub(super) async fn put_clock(
    TheVm(vm): TheVm,
    patience: CallerTimeout,
    JsonBody(request): JsonBody<ClockRequest>,
) -> Result<Json<ClockSet>, ApiError> {
    let at = |time_unix_ms| {
        let call = SetClock { time_unix_ms }.validate();
        call.map_err(|invalid| ApiError::invalid(&invalid).about(vm.name().clone()))
    };
    let asked = request.time_unix_ms.map(at).transpose()?;
    let deadline = patience.deadline_or(PATIENCE);
    let client = vm.client();
    let about = |error| ApiError::call(vm.name(), error);
    client.require(Feature::Clock, &[], deadline).await.map_err(about)?;
    let call = asked.map_or_else(|| at(unix_ms(SystemTime::now())), Ok)?;
    let set = client.call(&call, Lane::Quick, deadline).await.map_err(about)?;
    Ok(Json(ClockSet { status: "ok".into(), step_ms: set.step_ms }))
}
