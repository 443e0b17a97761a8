//! Programs: `POST /vms/{vm}/exec` in its three forms. Its WebSocket, `/vms/{vm}/execs` and
//! `POST /exec` on many VMs are rooms of their own.
//!
//! * [`plan`]: what a caller wants run, checked.
//! * [`accept`]: which form the caller accepts. [`lines`], [`text`]: a program as a stream of events.
//! * [`websocket`], [`pump`]: a program as channel messages. [`acks`]: acknowledgement for simple clients.
//! * [`execs`], [`output`]: those that are there already.
//! * [`many`], [`select`]: one program on many VMs.
//! * [`show`]: the wire's view as REST's.

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

/// What a call takes beyond its program's time: up to 8 s for a connection (a permit, a ping, a
/// dial), a moment for the agent to see that what it killed is dead, and the reply's way.
const AFTER_LIMIT: Duration = Duration::from_secs(20);

/// For a program that goes on by itself to be started: as long as a connection may take to come back.
const START: Duration = Duration::from_secs(30);

/// For a plain agent's only reply to a program that has no time limit.
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

/// Runs a program, which has a time limit, to its end.
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
            // Nobody reads the result after the caller's patience, and nobody can tell such an agent
            // then: the program shall not outlive it.
            let patience =
                patience.asked().and_then(|patience| patience.as_millis().try_into().ok());
            exec.timeout_ms = exec.timeout_ms.map(|limit| limit.min(patience.unwrap_or(limit)));
            let reply = plain::run(vm, &exec, deadline).await?;
            let (mut share, held) =
                (api.execs.output.share(), reply.stdout.len() + reply.stderr.len());
            if held > FREE {
                share.grow_to(held).await?;
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

/// Starts a program, and tells it as it happens.
async fn stream(api: &Api, vm: &Vm, plan: Plan, around: Around) -> Result<Response, CallError> {
    let longest = plan.longest().unwrap_or(ENDLESS) + AFTER_LIMIT;
    let started_by = around.deadline.unwrap_or_else(|| Instant::now() + START);
    let source = match vm.client().programs(started_by).await? {
        Programs::Objects(instance) => {
            let place = Place { vm: vm.clone(), instance };
            let (start, stdin) = (&plan.start, plan.stdin.clone());
            let driver = Driver::start(&api.execs, &place, start, stdin, started_by).await?;
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

/// Starts a program, gives it its input, and leaves it.
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
            reason: format!("it was started, and nothing is known since: {error}"),
        }
    })?;
    // The caller need not wait until the program has read it all, and leaving is dropping.
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

/// The agent, if it knows execs as objects.
async fn objects(vm: &Vm, plan: &Plan, deadline: Instant) -> Result<Instance, CallError> {
    match vm.client().programs(deadline).await? {
        Programs::Objects(instance) => Ok(instance),
        Programs::Plain { limits } => Err(match plan.plain(limits) {
            Err(error) => error,
            Ok(_) => execs::too_old(),
        }),
    }
}

/// A request for a program, up to where it would be sent.
#[cfg(fuzzing)]
pub(super) fn planned(body: &[u8]) {
    use minions_proto::message::encode_request;
    for form in [Form::Post, Form::Many, Form::WebSocket] {
        let Some(request) = super::fuzzing::again::<ExecRequest>(body) else { return };
        if let Ok(plan) = Plan::of(request, form) {
            plan.start.validate().expect("what is planned is possible");
            let _ = encode_request(&plan.start);
        }
    }
}
