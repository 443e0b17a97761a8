//! Programs: `POST /vms/{vm}/exec` with its three forms of reply (collected, streamed, detached). The submodules have
//! the WebSocket, `/vms/{vm}/execs`, and `POST /exec` for many VMs.
//!
//! * [`plan`]: a validated request for a program.
//! * [`accept`]: choice of the reply's form. [`lines`], [`text`]: a program as a stream of events.
//! * [`result`]: a collected result as a response.
//! * [`websocket`], [`pump`]: a program as channel messages. [`acks`]: acknowledgement for simple clients.
//! * [`execs`], [`output`]: existing programs and their output.
//! * [`many`], [`select`]: one program on many VMs.
//! * [`show`]: conversion from wire types to REST types.

mod accept;
mod acks;
pub(super) mod execs;
mod lines;
pub(super) mod many;
pub(super) mod output;
mod plan;
mod pump;
mod result;
mod select;
mod show;
mod text;
pub(super) mod websocket;

use super::Api;
use super::audit::Note;
use super::extract::{CallParams, JsonBody, Patience, TheVm};
use super::problem::{ApiError, ExecProblems};
use super::request_id::RequestId;
use crate::agent::{CallError, Instance, Lane, Programs};
use crate::budget::FREE;
use crate::exec::plain::{self, Plain};
use crate::exec::{Driver, Place, collected};
use crate::vm::Vm;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use lines::{Around, Source};
use minions_api::VmName;
use minions_api::exec::{ExecEvent, ExecInfo, ExecRequest, ExecResult, MAX_TIMEOUT_MS};
use minions_proto::message::ExecInspect;
use plan::{Form, Plan};
use result::Finished;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Time that a call may take beyond the program's time limit: up to 8 s for a connection (a permit, a ping, a dial), the
/// time until the agent sees the death of a killed program, and the transfer of the reply.
const AFTER_LIMIT: Duration = Duration::from_secs(20);

/// Default deadline for the start of a streamed or detached program. It allows for a lost connection to be
/// re-established.
const START: Duration = Duration::from_secs(30);

/// Deadline for the single reply of a plain agent to a program without a time limit.
const ENDLESS: Duration = Duration::from_millis(MAX_TIMEOUT_MS);

/// Run a program
///
/// Waits for the program and returns its result and output as JSON; or streams its events (`Accept:
/// application/x-ndjson`); or only starts it (`detach`). A program that ran is a 200, whatever its
/// exit status. A program that cannot be started is a problem.
#[utoipa::path(
    post, path = "/vms/{vm}/exec", operation_id = "run_exec", tag = "exec",
    params(
        ("vm" = VmName, Path),
        ("Accept" = Option<String>, Header,
            description = "`application/x-ndjson` selects a stream of events, one per line"),
        CallParams,
    ),
    request_body = ExecRequest,
    responses(
        (status = 200, description = "Result of the program; or, as a stream, its events",
            content((ExecResult = "application/json"), (ExecEvent = "application/x-ndjson"))),
        (status = 202, description = "Started; it continues without a client (`detach`)",
            body = ExecInfo),
        ExecProblems,
    ),
)]
pub(super) async fn run_exec(
    State(api): State<Api>,
    TheVm(vm): TheVm,
    patience: Patience,
    note: Note,
    request_id: RequestId,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Result<Response, ApiError> {
    note.program(&request.command, &request.args).await?;
    let name = vm.name().clone();
    let plan = Plan::of(request, Form::Post).map_err(|error| error.about(name.clone()))?;
    note.exec(plan.id());
    let served = if plan.detach {
        detach(&api, &vm, plan, &patience).await.map(|info| {
            note.outcome(|| "detached".into());
            (StatusCode::ACCEPTED, Json(info)).into_response()
        })
    } else if accept::prefers_lines(&headers) {
        let request_id = request_id.as_str().to_owned();
        let (vm_name, note) = (name.clone(), note.clone());
        let deadline = patience.asked().map(|patience| Instant::now() + patience);
        let around = Around { vm: vm_name, request_id, note, deadline };
        stream(&api, &vm, plan, around).await
    } else {
        collect(&api, &vm, &plan.limited(), &patience).await.map(|finished| {
            note.outcome(|| finished.in_words());
            finished.into_response()
        })
    };
    served.map_err(|error| {
        let error = ApiError::exec(&name, error);
        note.outcome(|| error.code().to_string());
        error
    })
}

/// Runs a program to its end and collects its output. The plan must have a time limit.
async fn collect(
    api: &Api,
    vm: &Vm,
    plan: &Plan,
    patience: &Patience,
) -> Result<Finished, CallError> {
    let longest = plan.longest().unwrap_or(ENDLESS);
    let deadline = patience.deadline_or(longest + AFTER_LIMIT);
    let instance = match vm.client().programs(deadline).await? {
        Programs::Objects(instance) => instance,
        Programs::Plain { limits } => {
            let mut exec = plan.plain(limits)?;
            // After the caller's timeout the result is useless, and such an agent cannot be told to end the program
            // then. So the program gets the same limit.
            let caller_limit =
                patience.asked().and_then(|patience| patience.as_millis().try_into().ok());
            exec.timeout_ms = exec.timeout_ms.map(|limit| limit.min(caller_limit.unwrap_or(limit)));
            let reply = plain::run(vm, &exec, deadline).await?;
            let mut share = api.execs.output.share();
            let output_len = reply.stdout.len() + reply.stderr.len();
            if output_len > FREE {
                share.grow_to(output_len).await?;
            }
            return Ok(Finished::plain(reply, share));
        }
    };
    let place = Place { vm: vm.clone(), instance };
    let mut driver =
        Driver::start(&api.execs, &place, &plan.start, plan.stdin.clone(), deadline).await?;
    let collecting = collected::collect(&mut driver, plan.keep, api.execs.output.share());
    let collected = timeout_at(deadline, collecting).await;
    let collected = collected.unwrap_or(Err(CallError::TimedOut { sent: true }))?;
    Finished::object(plan.id(), collected)
}

/// Starts a program and returns a response that streams its events.
async fn stream(api: &Api, vm: &Vm, plan: Plan, around: Around) -> Result<Response, CallError> {
    let longest = plan.longest().unwrap_or(ENDLESS) + AFTER_LIMIT;
    let started_by = around.deadline.unwrap_or_else(|| Instant::now() + START);
    let source = match vm.client().programs(started_by).await? {
        Programs::Objects(instance) => {
            let place = Place { vm: vm.clone(), instance };
            let stdin = plan.stdin.clone();
            let driver = Driver::start(&api.execs, &place, &plan.start, stdin, started_by).await?;
            Source::Object(Box::new(driver))
        }
        Programs::Plain { limits } => {
            let exec = plan.plain(limits)?;
            let deadline = around.deadline.unwrap_or_else(|| Instant::now() + longest);
            let plain = Plain::start(vm.clone(), exec, deadline).await?;
            Source::Plain(plain, plan.id().to_owned())
        }
    };
    Ok(lines::response(source, around, [0, 0]))
}

/// Starts a program, sends its input, and leaves it running.
async fn detach(
    api: &Api,
    vm: &Vm,
    plan: Plan,
    patience: &Patience,
) -> Result<ExecInfo, CallError> {
    let deadline = patience.deadline_or(START);
    let instance = objects(vm, &plan, deadline).await?;
    let place = Place { vm: vm.clone(), instance };
    let driver =
        Driver::start(&api.execs, &place, &plan.start, plan.stdin.clone(), deadline).await?;
    let id = driver.attached().id.clone();
    let inspect = ExecInspect { id, wait_ms: None };
    let info = vm.client().call(&inspect, Lane::Quick, deadline).await.map_err(|error| {
        CallError::ExecLost {
            reason: format!("it was started, but its state cannot be read: {error}"),
        }
    })?;
    // The caller does not wait until the program has read its input. Dropping the driver sends `leave`.
    api.execs.tasks.spawn({
        let draining = api.execs.draining.clone();
        async move {
            tokio::select! {
                () = driver.give_input() => {}
                () = draining.cancelled() => {}
            }
        }
    });
    Ok(show::info(info))
}

/// Returns the agent's instance, if the agent supports execs (feature `exec2`).
///
/// # Errors
///
/// [`CallError::TooOld`], naming the plan's unsupported fields if there are any.
async fn objects(vm: &Vm, plan: &Plan, deadline: Instant) -> Result<Instance, CallError> {
    match vm.client().programs(deadline).await? {
        Programs::Objects(instance) => Ok(instance),
        Programs::Plain { limits } => Err(match plan.plain(limits) {
            Err(error) => error,
            Ok(_) => execs::too_old(),
        }),
    }
}

/// Processes a request for a program up to the encoded message, for fuzzing.
#[cfg(fuzzing)]
pub(super) fn planned(body: &[u8]) {
    use minions_proto::message::encode_request;
    for form in [Form::Post, Form::Many, Form::WebSocket] {
        let Some(request) = super::fuzzing::round_trip::<ExecRequest>(body) else { return };
        if let Ok(plan) = Plan::of(request, form) {
            plan.start.validate().expect("a plan is valid");
            let _ = encode_request(&plan.start);
        }
    }
}
