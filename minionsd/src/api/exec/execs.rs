//! `/vms/{vm}/execs`: the execs of an agent, and their output. Reading has no effect on a program.

use super::super::audit::Note;
use super::super::extract::{CallParams, JsonBody, Params, Patience, TheExec, TheVm, milliseconds};
use super::super::problem::{ApiError, IdProblems, SignalProblems};
use super::super::request_id::RequestId;
use super::super::state::ApiState;
use super::convert;
use super::lines::{self, StreamContext};
use crate::agent::{AgentRefusal, CallError, Lane};
use crate::exec::{ExecDriver, ExecError, ExecTarget, RunningExec};
use crate::vm::Vm;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use minions_api::VmName;
use minions_api::exec::{ExecEvent, ExecInfo, ExecInfoList, SignalRequest, SignalSent};
use minions_proto::Call;
use minions_proto::exec_client::MAX_OFFSET;
use minions_proto::message::{
    ExecAttach, ExecInfo as WireInfo, ExecInspect, ExecList, ExecRemove, ExecSignal,
    MAX_KILL_GRACE_MS, Role,
};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

/// Default deadline: an agent answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Default deadline for removing a program: it may use all of its kill grace, and its child processes must end too.
const REMOVE_PATIENCE: Duration = Duration::from_millis(MAX_KILL_GRACE_MS + 35_000);

/// Maximum wait in one request to the agent. Longer waits are split, because a dead connection may go unnoticed.
const WAIT_AT_A_TIME: Duration = Duration::from_secs(15);

async fn ask<C: Call>(
    vm: &Vm,
    call: &C,
    lane: Lane,
    deadline: Instant,
) -> Result<C::Reply, CallError> {
    ExecTarget::find(vm, deadline).await?.call(call, lane, deadline).await
}

/// List the programs of a VM
///
/// Returns the execs that run and those that ended recently, oldest first.
#[utoipa::path(
    get, path = "/vms/{vm}/execs", operation_id = "list_execs", tag = "exec",
    params(("vm" = VmName, Path), CallParams),
    responses((status = 200, description = "Execs, oldest first", body = ExecInfoList), IdProblems),
)]
pub(in super::super) async fn list_execs(
    TheVm(vm): TheVm,
    patience: Patience,
) -> Result<Json<ExecInfoList>, ApiError> {
    let listed = ask(&vm, &ExecList {}, Lane::Quick, patience.deadline_or(PATIENCE)).await;
    let listed = listed.map_err(|error| ApiError::call(vm.name(), error))?;
    Ok(Json(ExecInfoList { execs: listed.execs.into_iter().map(convert::info).collect() }))
}

/// Query of `GET /vms/{vm}/execs/{id}`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct InspectParams {
    /// Milliseconds to wait for the end of the program before answering. Default: none.
    #[param(minimum = 0, maximum = 86_400_000)]
    wait_ms: Option<u64>,
    /// Milliseconds after which the caller gets an `agent_timeout` instead of an answer.
    #[param(minimum = 1, maximum = 86_400_000)]
    timeout_ms: Option<u64>,
}

/// Get the state of a program
///
/// With `wait_ms` the reply is sent when the program ends, or after that time.
#[utoipa::path(
    get, path = "/vms/{vm}/execs/{id}", operation_id = "get_exec", tag = "exec",
    params(("vm" = VmName, Path), ("id" = String, Path, description = "Id of the exec"), InspectParams),
    responses((status = 200, description = "State of the exec", body = ExecInfo), IdProblems),
)]
pub(in super::super) async fn get_exec(
    TheVm(vm): TheVm,
    TheExec(id): TheExec,
    Params(params): Params<InspectParams>,
    note: Note,
) -> Result<Json<ExecInfo>, ApiError> {
    note.exec(id.as_str());
    let wait = milliseconds("wait_ms", params.wait_ms, 0)?.unwrap_or_default();
    let deadline = Patience::of(params.timeout_ms)?.deadline_or(wait + PATIENCE);
    let info = inspect(&vm, ExecInspect { id, wait_ms: None }, wait, deadline).await;
    let info = info.map_err(|error| ApiError::call(vm.name(), error))?;
    Ok(Json(convert::info(info)))
}

/// Returns the state of a program as soon as it has ended, or after `wait`.
async fn inspect(
    vm: &Vm,
    mut inspect: ExecInspect,
    wait: Duration,
    deadline: Instant,
) -> Result<WireInfo, CallError> {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now()).min(WAIT_AT_A_TIME);
        let (lane, wait_ms) = match left.as_millis() {
            0 => (Lane::Quick, None),
            // At most 15 000.
            ms => (Lane::Beside, u64::try_from(ms).ok()),
        };
        inspect.wait_ms = wait_ms;
        let answered_by = deadline.min(Instant::now() + left + PATIENCE);
        let info = ask(vm, &inspect, lane, answered_by).await?;
        if info.outcome.is_some() || lane == Lane::Quick {
            return Ok(info);
        }
    }
}

/// End a program and remove it
///
/// Ends the program if it runs, together with everything that it started, and removes the exec from
/// the agent's list.
#[utoipa::path(
    delete, path = "/vms/{vm}/execs/{id}", operation_id = "delete_exec", tag = "exec",
    params(("vm" = VmName, Path), ("id" = String, Path, description = "Id of the exec"), CallParams),
    responses((status = 200, description = "Final state of the exec", body = ExecInfo), IdProblems),
)]
pub(in super::super) async fn delete_exec(
    TheVm(vm): TheVm,
    TheExec(id): TheExec,
    patience: Patience,
    note: Note,
) -> Result<Json<ExecInfo>, ApiError> {
    note.exec(id.as_str());
    let deadline = patience.deadline_or(REMOVE_PATIENCE);
    let info = ask(&vm, &ExecRemove { id }, Lane::Beside, deadline).await;
    let info = convert::info(info.map_err(|error| ApiError::call(vm.name(), error))?);
    if let Some(outcome) = &info.outcome {
        note.outcome(|| convert::in_words(outcome));
    }
    Ok(Json(info))
}

/// Send a signal to a program
///
/// The signal goes to the program's process group.
#[utoipa::path(
    post, path = "/vms/{vm}/execs/{id}/signal", operation_id = "signal_exec", tag = "exec",
    params(("vm" = VmName, Path), ("id" = String, Path, description = "Id of the exec"), CallParams),
    request_body = SignalRequest,
    responses((status = 200, description = "Signal sent", body = SignalSent), SignalProblems),
)]
pub(in super::super) async fn signal_exec(
    TheVm(vm): TheVm,
    TheExec(id): TheExec,
    patience: Patience,
    note: Note,
    JsonBody(request): JsonBody<SignalRequest>,
) -> Result<Json<SignalSent>, ApiError> {
    note.exec(id.as_str());
    let signal = request.signal.parse().map_err(|invalid| ApiError::value(&invalid));
    let signal = signal.map_err(|error| error.about(vm.name().clone()))?;
    let call = ExecSignal { id, signal };
    let done = ask(&vm, &call, Lane::Quick, patience.deadline_or(PATIENCE)).await;
    let done = done.map_err(|error| ApiError::call(vm.name(), error))?;
    Ok(Json(SignalSent { status: "ok".into(), message: done.message }))
}

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
    State(api): State<ApiState>,
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
    let driver = driver.map_err(|error| ApiError::exec(vm.name(), in_our_words(error)))?;
    let (vm, request_id) = (vm.name().clone(), request_id.as_str().to_owned());
    let context = StreamContext { vm, request_id, note, deadline };
    Ok(lines::response(RunningExec::Object(Box::new(driver)), context, [stdout, stderr]))
}

async fn watch(
    api: &ApiState,
    vm: &Vm,
    attach: &ExecAttach,
    deadline: Instant,
) -> Result<ExecDriver, ExecError> {
    let target = ExecTarget::find(vm, deadline).await?;
    // The minimum extent of a snapshot, because a lost connection ends the stream like a complete snapshot does.
    let inspect = ExecInspect { id: attach.id.clone(), wait_ms: None };
    let info = target.call(&inspect, Lane::Quick, deadline).await?;
    let extent = (info.stdout_bytes, info.stderr_bytes);
    ExecDriver::watch(&api.execs, &target, attach, extent, deadline).await
}

/// Replaces the wire's names of offset fields in an agent's error with those of the REST interface.
pub(super) fn in_our_words(error: ExecError) -> ExecError {
    match error {
        ExecError::Call(CallError::Refused(AgentRefusal::Answer(mut error))) => {
            if let Some(field @ ("stdout" | "stderr")) = error.field.as_deref() {
                error.field = Some(format!("{field}_offset"));
            }
            AgentRefusal::Answer(error).into()
        }
        error => error,
    }
}
