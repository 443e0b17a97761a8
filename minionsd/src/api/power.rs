//! `POST /vms/{vm}/power`.

use super::extract::{CallParams, JsonBody, Patience, TheVm};
use super::problem::{ApiError, BodyProblems};
use crate::agent::{CallError, Lane};
use crate::vm::Vm;
use crate::vm::ending::EndingKind;
use crate::vm::guest_text::clipped;
use axum::Json;
use axum::http::StatusCode;
use minions_api::VmName;
use minions_api::power::{PowerAccepted, PowerRequest};
use minions_proto::message::{Feature, Power, PowerAction};
use std::time::Duration;

/// Default deadline: the agent answers before it acts.
const PATIENCE: Duration = Duration::from_secs(5);

/// Power off or reboot a guest
///
/// The reply is sent before it happens. `GET /vms/{vm}` and `GET /events` show the result: after a reboot the `boot_id`
/// is another one; after a poweroff the VM is gone, or is not ready with the reason `powered_off`.
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
    // Asked now: the boot of the last probe may be over.
    let health = client.health(deadline).await.map_err(about)?.health;
    let boot_id = health.agent.map(|agent| clipped(agent.boot_id.into()));
    let PowerRequest { action, force } = request;
    let next_step = next_step(&vm, action);
    let ending = match action {
        PowerAction::Poweroff => EndingKind::Poweroff,
        PowerAction::Reboot => EndingKind::Reboot,
    };
    let call = Power { action, force };
    let done = client.call(&call, Lane::Quick, deadline).await;
    if done.as_ref().map_or_else(CallError::may_have_executed, |_| true) {
        vm.asked_to_end(ending);
    }
    let message = done.map_err(about)?.message;
    let accepted = PowerAccepted { status: "ok".into(), message, boot_id, next_step };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// The step that this VMM leaves to the host.
fn next_step(vm: &Vm, action: PowerAction) -> Option<String> {
    let vmm = vm.status().vmm?;
    match action {
        PowerAction::Poweroff => {
            vmm.how_to_end().map(|how| format!("when the guest has halted: {how}"))
        }
        PowerAction::Reboot => vmm.ends_at_reboot().then(|| {
            let remove = vm.client().pool().connector().remove_command();
            format!("{vmm} ends when its guest reboots: then {remove} and start it again")
        }),
    }
}
