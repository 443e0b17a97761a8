//! `GET /vms/{vm}/health`.

use super::extract::{CallParams, CallerTimeout, TheVm};
use super::problem::{ApiError, GuestProblems};
use crate::agent::IncarnationId;
use crate::clock::offset_ms;
use axum::Json;
use minions_api::{Timestamp, VmName, health};
use minions_proto::message::{AgentInfo, MAX_TTL_MS};
use std::time::Duration;

/// Default deadline: a healthy agent answers within a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// Get the health of a guest
///
/// Asks the agent at the time of the request. Also returns the agent's version and features, and
/// the offset of the guest's clock.
#[utoipa::path(
    get, path = "/vms/{vm}/health", operation_id = "get_health", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    responses((status = 200, description = "Health of the guest", body = health::Health), GuestProblems),
)]
pub(super) async fn get_health(
    TheVm(vm): TheVm,
    patience: CallerTimeout,
) -> Result<Json<health::Health>, ApiError> {
    let deadline = patience.deadline_or(PATIENCE);
    let answered =
        vm.client().health(deadline).await.map_err(|error| ApiError::call(vm.name(), error))?;
    let reply = &answered.health;
    let quiesced = reply.quiesced.as_ref();
    Ok(Json(health::Health {
        status: "ok".into(),
        uptime_secs: reply.uptime_secs,
        hostname: reply.hostname.clone(),
        agent: reply.agent.as_ref().map(agent_info),
        clock_offset_ms: reply
            .time_unix_ms
            .map(|theirs| offset_ms(theirs, answered.asked, answered.answered)),
        incarnation_id: reply.agent.as_ref().map(|agent| IncarnationId::of(agent).into_text()),
        quiesced_until: quiesced.map(|lease| {
            let left = Duration::from_millis(lease.lease_ms.min(MAX_TTL_MS));
            Timestamp(answered.answered + left)
        }),
    }))
}

/// Converts the agent's description from the wire type to the REST type.
pub(super) fn agent_info(agent: &AgentInfo) -> health::AgentInfo {
    let AgentInfo {
        name,
        version,
        protocol,
        features,
        boot_id,
        instance_id,
        allowed,
        generation,
        parent_instance_id,
        probe_count: _,
        restore,
    } = agent;
    health::AgentInfo {
        name: name.clone(),
        version: version.clone(),
        protocol: *protocol,
        features: features.clone(),
        allowed: allowed.clone(),
        boot_id: boot_id.to_string(),
        instance_id: instance_id.to_string(),
        generation: *generation,
        parent_instance_id: parent_instance_id.as_ref().map(ToString::to_string),
        restore: *restore,
    }
}
