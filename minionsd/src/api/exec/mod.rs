//! Programs: `POST /vms/{vm}/exec` with its three forms of reply (collected, streamed, detached). The submodules have
//! the WebSocket, `/vms/{vm}/execs`, and `POST /exec` for many VMs.
//!
//! * [`request`]: validation of a request, and its conversion to a plan.
//! * [`lines`], [`text`]: a program as a stream of events.
//! * [`websocket`], [`pump`]: a program as channel messages.
//! * [`execs`]: existing programs and their output.
//! * [`many`]: one program on many VMs.
//! * [`convert`]: conversion from wire types to REST types.

mod convert;
pub(super) mod execs;
mod lines;
pub(super) mod many;
mod pump;
pub(super) mod request;
mod text;
pub(super) mod websocket;

use super::audit::Note;
use super::extract::{CallParams, JsonBody, Patience, TheVm};
use super::problem::{ApiError, ExecProblems};
use super::request_id::RequestId;
use super::state::ApiState;
use crate::agent::TransportError;
use crate::budget::FREE;
use crate::exec::{self, ExecDeadlines, ExecError, ExecPlan, RunningExec, collected};
use crate::vm::Vm;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use convert::FinishedExec;
use lines::StreamContext;
use minions_api::VmName;
use minions_api::exec::{ExecEvent, ExecInfo, ExecRequest, ExecResult};
use request::ExecForm;
pub(super) use request::generate_id;
use tokio::time::timeout_at;

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
    State(api): State<ApiState>,
    TheVm(vm): TheVm,
    patience: Patience,
    note: Note,
    request_id: RequestId,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Result<Response, ApiError> {
    note.program(&request.command, &request.args).await?;
    let name = vm.name().clone();
    let plan = request::plan(request, ExecForm::Post).map_err(|error| error.about(name.clone()))?;
    note.exec(plan.id.as_str());
    let deadlines = ExecDeadlines::within(patience.asked());
    let served = if plan.detach {
        exec::detach(&api.execs, &vm, &plan, deadlines.start).await.map(|info| {
            note.outcome(|| "detached".into());
            (StatusCode::ACCEPTED, Json(convert::info(info))).into_response()
        })
    } else if lines::prefers_lines(&headers) {
        RunningExec::open(&api.execs, &vm, &plan, deadlines).await.map(|running| {
            let (request_id, note) = (request_id.as_str().to_owned(), note.clone());
            let deadline = deadlines.end;
            let context = StreamContext { vm: name.clone(), request_id, note, deadline };
            lines::response(running, context, [0, 0])
        })
    } else {
        let plan = plan.collected(patience.asked());
        collect(&api, &vm, &plan, &patience).await.map(|finished| {
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

/// Runs a program to its end and collects its output.
async fn collect(
    api: &ApiState,
    vm: &Vm,
    plan: &ExecPlan,
    patience: &Patience,
) -> Result<FinishedExec, ExecError> {
    let deadline = patience.deadline_or(plan.longest_call());
    let deadlines = ExecDeadlines { start: deadline, end: Some(deadline) };
    match RunningExec::open(&api.execs, vm, plan, deadlines).await? {
        RunningExec::Object(mut driver) => {
            let collecting = collected::collect(&mut driver, plan.keep, api.execs.output.share());
            let collected = timeout_at(deadline, collecting).await;
            let collected =
                collected.unwrap_or(Err(TransportError::TimedOut { sent: true }.into()))?;
            FinishedExec::object(&plan.id, collected)
        }
        RunningExec::Plain(plain) => {
            let reply = plain.collect().await?;
            let mut share = api.execs.output.share();
            let output_len = reply.stdout.len() + reply.stderr.len();
            if output_len > FREE {
                share.grow_to(output_len).await?;
            }
            Ok(FinishedExec::plain(reply, share))
        }
    }
}
