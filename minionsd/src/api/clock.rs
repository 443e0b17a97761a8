//! `PUT /vms/{vm}/clock`, and how far a guest's clock is off.

use super::extract::{CallParams, JsonBody, Patience, TheVm};
use super::problem::{ApiError, BodyProblems};
use crate::agent::Lane;
use axum::Json;
use minions_api::VmName;
use minions_api::clock::{ClockRequest, ClockSet};
use minions_proto::message::{CLOCK_FEATURE, SetClock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One system call.
const PATIENCE: Duration = Duration::from_secs(5);

/// Set the guest's clock
///
/// A guest that was paused, or restored from a snapshot, believes that no time has passed.
#[utoipa::path(
    put, path = "/vms/{vm}/clock", operation_id = "put_clock", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    request_body = ClockRequest,
    responses((status = 200, description = "It was set", body = ClockSet), BodyProblems),
)]
pub(super) async fn put_clock(
    TheVm(vm): TheVm,
    patience: Patience,
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
    client.require(CLOCK_FEATURE, "set its clock", deadline).await.map_err(about)?;
    let call = asked.map_or_else(|| at(unix_ms(SystemTime::now())), Ok)?;
    let set = client.call(&call, Lane::Quick, deadline).await.map_err(about)?;
    Ok(Json(ClockSet { status: "ok".into(), step_ms: set.step_ms }))
}

/// How far a clock is ahead of ours that said `theirs` at some moment between `asked` and `answered`,
/// in milliseconds. Right to half of that time.
pub(super) fn offset_ms(theirs: u64, asked: SystemTime, answered: SystemTime) -> i64 {
    let [asked, answered] = [asked, answered].map(|time| i128::from(unix_ms(time)));
    let ahead = i128::from(theirs) - (asked + answered) / 2;
    i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_from_the_middle_of_the_exchange() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(offset_ms(10_000, at(9_000), at(9_100)), 950);
        assert_eq!(offset_ms(0, at(5_000), at(5_000)), -5_000);
        assert_eq!(offset_ms(u64::MAX, at(0), at(0)), i64::MAX);
    }
}
