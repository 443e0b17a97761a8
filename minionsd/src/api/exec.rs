//! `POST /vms/{vm}/exec`.

use super::audit::Note;
use super::extract::{CallParams, JsonBody, Patience, TheVm};
use super::problem::{ApiError, ExecProblems};
use crate::agent::{AgentClient, CallError, Lane};
use axum::Json;
use minions_api::VmName;
use minions_api::exec::{ExecRequest, ExecResult, MAX_TIMEOUT_MS, Outcome};
use minions_proto::Invalid;
use minions_proto::message::{Exec, ExecReply, Outcome as WireOutcome};
use std::time::Duration;
use tokio::time::Instant;

/// How long a program may take whose caller didn't say.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What a call takes beyond its program's time: up to 8 s for a connection (a permit, a ping, a
/// dial), 7 s for the agent to end a program that doesn't want to end, and the reply's way.
const AFTER_LIMIT: Duration = Duration::from_secs(20);

/// Run a program, wait for it, and return its output
#[utoipa::path(
    post, path = "/vms/{vm}/exec", operation_id = "run_exec", tag = "guest",
    params(("vm" = VmName, Path), CallParams),
    request_body = ExecRequest,
    responses((status = 200, description = "It ran, whatever its end", body = ExecResult), ExecProblems),
)]
pub(super) async fn run_exec(
    TheVm(vm): TheVm,
    patience: Patience,
    note: Note,
    JsonBody(request): JsonBody<ExecRequest>,
) -> Result<Json<ExecResult>, ApiError> {
    note.program(&request.command, &request.args);
    let asked = request.timeout_ms;
    let mut call =
        Exec { command: request.command, args: request.args, timeout_ms: request.timeout_ms };
    call.validate()
        .and_then(|()| within_a_day(asked))
        .map_err(|invalid| ApiError::invalid(&invalid).about(vm.name().clone()))?;
    let limit = asked.map_or(DEFAULT_LIMIT, Duration::from_millis);
    let deadline = patience.deadline_or(limit + AFTER_LIMIT);
    // Nobody reads the result after the caller's patience: the program shall not outlive it.
    let limit = patience.asked().map_or(limit, |patience| patience.min(limit));
    run(vm.client(), &mut call, limit, asked.is_some(), deadline)
        .await
        .map(|reply| Json(result(reply)))
        .map_err(|error| ApiError::call(vm.name(), error))
}

/// A base agent knows no time limit. Where the caller asked for one, that is an error; where it is
/// only our default, the deadline has to do.
async fn run(
    client: &AgentClient,
    call: &mut Exec,
    limit: Duration,
    asked: bool,
    deadline: Instant,
) -> Result<ExecReply, CallError> {
    let base = client.is_base(deadline).await?;
    if base && asked {
        return Err(CallError::TooOld { needs: "time limit for programs (`timeout_ms`)" });
    }
    call.timeout_ms = if base { None } else { u64::try_from(limit.as_millis()).ok() };
    client.call(call, Lane::Long, deadline).await
}

fn within_a_day(timeout_ms: Option<u64>) -> Result<(), Invalid> {
    match timeout_ms {
        Some(ms) if ms > MAX_TIMEOUT_MS => {
            let reason = format!("is {ms}: must be 1 to {MAX_TIMEOUT_MS}");
            Err(Invalid::new("timeout_ms", reason))
        }
        _ => Ok(()),
    }
}

fn result(reply: ExecReply) -> ExecResult {
    ExecResult {
        status: "ok".into(),
        exit_code: reply.exit_code,
        stdout: reply.stdout,
        stderr: reply.stderr,
        stdout_bytes: reply.stdout_bytes,
        stderr_bytes: reply.stderr_bytes,
        stdout_truncated: reply.stdout_truncated,
        stderr_truncated: reply.stderr_truncated,
        outcome: reply.outcome.map(outcome),
        duration_ms: reply.duration_ms,
    }
}

fn outcome(outcome: WireOutcome) -> Outcome {
    match outcome {
        WireOutcome::Exited { code } => Outcome::Exited { code },
        WireOutcome::Signaled { signal, core } => Outcome::Signaled { signal, core },
        WireOutcome::TimedOut => Outcome::TimedOut,
    }
}
