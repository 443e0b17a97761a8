//! Figures of guests, from the memory of the daemon: `GET /vms/{vm}/samples`, `GET /metrics/guests`, and targets for
//! Prometheus, `GET /sd`.

pub(super) mod discovery;
mod families;
mod label_names;
pub(super) mod metrics;

use super::extract::{QueryParams, TheVm};
use super::problem::VmProblems;
use crate::vm::samples::KeptSample;
use axum::Json;
use minions_api::samples::{GuestSamples, LatestSample};
use minions_api::{Timestamp, VmName};
use serde::Deserialize;
use std::time::Duration;

/// Query of `GET /vms/{vm}/samples`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SamplesQuery {
    /// Only samples after this time (RFC 3339), such as `at` of the last one that the caller has.
    #[param(value_type = Option<Timestamp>)]
    since: Option<Timestamp>,
}

/// Get samples of a guest's figures
///
/// Returns the last sample, and points of the last hour. Never contacts the guest: minionsd asks it at an interval
/// (`sample_interval_ms`).
#[utoipa::path(
    get, path = "/vms/{vm}/samples", operation_id = "get_samples", tag = "vms",
    params(("vm" = VmName, Path), SamplesQuery),
    responses((status = 200, description = "Figures of the guest", body = GuestSamples), VmProblems),
)]
pub(super) async fn get_samples(
    TheVm(vm): TheVm,
    QueryParams(SamplesQuery { since }): QueryParams<SamplesQuery>,
) -> Json<GuestSamples> {
    let series = vm.samples();
    Json(GuestSamples {
        status: "ok".into(),
        interval_ms: series.interval().map(milliseconds),
        latest: series.latest().map(|kept| shown(&kept)),
        samples: series.since(since),
    })
}

fn shown(kept: &KeptSample) -> LatestSample {
    let sample = (*kept.sample).clone();
    LatestSample {
        at: kept.at,
        age_ms: milliseconds(kept.age()),
        uptime_ms: sample.uptime_ms,
        cpus: sample.cpus,
        cpu: sample.cpu,
        load: sample.load,
        memory: sample.memory,
        pressure: sample.pressure,
        filesystems: sample.filesystems,
        disks: sample.disks,
        interfaces: sample.interfaces,
        processes: sample.processes,
        oom_kills: sample.oom_kills,
        agent: sample.agent,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
