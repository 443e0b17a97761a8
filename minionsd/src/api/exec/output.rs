//! `GET /vms/{vm}/execs/{id}/output`: the output of a program so far, and its further output. Reading has no effect on
//! the program.

use super::super::Api;
use super::super::audit::Note;
use super::super::extract::{Params, Patience, TheExec, TheVm};
use super::super::problem::{ApiError, IdProblems};
use super::super::request_id::RequestId;
use super::execs::instance;
use super::lines::{self, Around, Source};
use crate::agent::{CallError, Lane};
use crate::exec::{Driver, Place};
use crate::vm::Vm;
use axum::extract::State;
use axum::response::Response;
use minions_api::VmName;
use minions_api::exec::ExecEvent;
use minions_proto::exec_client::MAX_OFFSET;
use minions_proto::message::{ExecAttach, ExecInspect, Role};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

/// Default deadline for the start of the stream: an agent answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Query of `GET /vms/{vm}/execs/{id}/output`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct OutputParams {
    /// Offset of the first byte of standard output to return. Output that is no longer kept is reported as a `gap`.
    #[serde(default)]
    #[param(required = false, maximum = 9_007_199_254_740_991_u64)]
    stdout_offset: u64,
    /// Offset of the first byte of standard error to return. Output that is no longer kept is reported as a `gap`.
    #[serde(default)]
    #[param(required = false, maximum = 9_007_199_254_740_991_u64)]
    stderr_offset: u64,
    /// Also return further output, until the program ends. Default: no.
    #[serde(default)]
    #[param(required = false)]
    follow: bool,
    /// Milliseconds after which the stream ends with an `agent_timeout`. Default: none.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Read the output of a program
///
/// Returns the kept output from the given offsets as a stream of events; with `follow` it continues
/// until the program ends. Reading never slows the program down: output that is no longer kept is a
/// `gap`.
#[utoipa::path(
    get, path = "/vms/{vm}/execs/{id}/output", operation_id = "get_exec_output", tag = "exec",
    params(("vm" = VmName, Path), ("id" = String, Path, description = "Id of the exec"), OutputParams),
    responses(
        (status = 200, description = "`started`, the output, and `exit`, or `end` if the program still runs",
            body = ExecEvent, content_type = "application/x-ndjson"),
        IdProblems,
    ),
)]
pub(in super::super) async fn get_exec_output(
    State(api): State<Api>,
    TheVm(vm): TheVm,
    TheExec(id): TheExec,
    Params(params): Params<OutputParams>,
    note: Note,
    request_id: RequestId,
) -> Result<Response, ApiError> {
    note.exec(id.as_str());
    let patience = Patience::of(params.timeout_ms)?;
    let deadline = patience.asked().map(|patience| Instant::now() + patience);
    let (stdout, stderr) = (params.stdout_offset, params.stderr_offset);
    for (field, offset) in [("stdout_offset", stdout), ("stderr_offset", stderr)] {
        if offset > MAX_OFFSET {
            let detail = format!("`{field}` is {offset}: must be 0 to {MAX_OFFSET}");
            return Err(ApiError::malformed(Some(field.into()), detail));
        }
    }
    let role = if params.follow { Role::Watch } else { Role::Snapshot };
    let attach = ExecAttach { id, stdout: Some(stdout), stderr: Some(stderr), role };
    let driver = watch(&api, &vm, &attach, patience.deadline_or(PATIENCE)).await;
    let driver = driver.map_err(|error| ApiError::call(vm.name(), in_our_words(error)))?;
    let (vm, request_id) = (vm.name().clone(), request_id.as_str().to_owned());
    let around = Around { vm, request_id, note, deadline };
    Ok(lines::response(Source::Object(Box::new(driver)), around, [stdout, stderr]))
}

async fn watch(
    api: &Api,
    vm: &Vm,
    attach: &ExecAttach,
    deadline: Instant,
) -> Result<Driver, CallError> {
    let instance = instance(vm, deadline).await?;
    // The minimum extent of a snapshot, because a lost connection ends the stream like a complete snapshot does.
    let inspect = ExecInspect { id: attach.id.clone(), wait_ms: None };
    let info = vm.client().call(&inspect, Lane::Quick, deadline).await?;
    let place = Place { vm: vm.clone(), instance };
    let extent = (info.stdout_bytes, info.stderr_bytes);
    Driver::watch(&api.execs, &place, attach, extent, deadline).await
}

/// Replaces the wire's names of offset fields in an agent's error with those of the REST interface.
pub(super) fn in_our_words(error: CallError) -> CallError {
    match error {
        CallError::Agent(mut error) => {
            if let Some(field @ ("stdout" | "stderr")) = error.field.as_deref() {
                error.field = Some(format!("{field}_offset"));
            }
            CallError::Agent(error)
        }
        error => error,
    }
}
