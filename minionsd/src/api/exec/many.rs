//! `POST /exec`: one program on many VMs.
//!
//! Each VM has its own task and deadline, so a VM that hangs delays only its own line. The tasks belong to the body of
//! the response: when the caller disconnects, they are dropped, and every program is left.

use super::super::Api;
use super::super::audit::Note;
use super::super::extract::{CallParams, JsonBody, Patience};
use super::super::problem::{ApiError, ManyProblems};
use super::super::request_id::RequestId;
use super::lines::{self, line};
use super::plan::{Form, Plan};
use super::result::Finished;
use super::select::select;
use crate::agent::CallError;
use crate::vm::Vm;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use minions_api::VmName;
use minions_api::exec::{ManyExecEvent, ManyExecRequest, ManyExecSummary, Outcome, StartFailure};
use minions_proto::Invalid;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::message::HEARTBEAT;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Default number of VMs on which the program runs concurrently.
const CONCURRENCY: u32 = 32;
/// Maximum number of VMs on which the program runs concurrently.
const MAX_CONCURRENCY: u32 = 256;

/// Run a program on many VMs
///
/// Streams a line for each VM when its program ends, and a summary at the end. The time limit and
/// `timeout_ms` apply to each VM separately, from the start of its turn.
#[utoipa::path(
    post, path = "/exec", operation_id = "run_many_execs", tag = "exec",
    params(CallParams),
    request_body = ManyExecRequest,
    responses(
        (status = 200, description = "A line for each VM when its program ends, and a summary",
            body = ManyExecEvent, content_type = "application/x-ndjson"),
        ManyProblems,
    ),
)]
pub(in super::super) async fn run_many_execs(
    State(api): State<Api>,
    patience: Patience,
    note: Note,
    request_id: RequestId,
    JsonBody(request): JsonBody<ManyExecRequest>,
) -> Result<Response, ApiError> {
    note.program(&request.exec.command, &request.exec.args).await?;
    let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
    let vms = select(&request.vms, &vms)?;
    let plan = Plan::of(request.exec, Form::Many).map_err(|error| error.within("exec"))?;
    note.exec(plan.id());
    let concurrency = match request.concurrency.unwrap_or(CONCURRENCY) {
        some @ 1..=MAX_CONCURRENCY => some,
        other => {
            let reason = format!("is {other}: must be 1 to {MAX_CONCURRENCY}");
            return Err(ApiError::invalid(&Invalid::new("concurrency", reason)));
        }
    };
    let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let summary = ManyExecSummary { total: vms.len() as u64, ..ManyExecSummary::default() };
    let all = Many {
        job: Arc::new(Job { api, plan: plan.limited(), patience, request_id }),
        note,
        waiting: vms.into_iter(),
        running: JoinSet::new(),
        concurrency: usize::try_from(concurrency).unwrap_or(1),
        fail_fast: request.fail_fast,
        beat,
        summary,
        over: false,
    };
    Ok(lines::body(all, |mut all| async move {
        let line = all.next().await?;
        Some((line, all))
    }))
}

/// The part of the request that is the same for every VM.
#[derive(Debug)]
struct Job {
    api: Api,
    plan: Plan,
    patience: Patience,
    request_id: RequestId,
}

/// The runs on all VMs, in progress.
#[derive(Debug)]
struct Many {
    job: Arc<Job>,
    note: Note,
    waiting: std::vec::IntoIter<Vm>,
    running: JoinSet<(VmName, Result<Finished, CallError>)>,
    concurrency: usize,
    fail_fast: bool,
    beat: Interval,
    summary: ManyExecSummary,
    over: bool,
}

impl Many {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let failed = self.summary.failed + self.summary.problems > 0;
        if self.fail_fast && failed {
            if let Some(vm) = self.waiting.next() {
                self.summary.skipped += 1;
                return Some(line(&ManyExecEvent::Skipped { vm: vm.name().clone() }));
            }
        } else {
            self.start_more();
        }
        loop {
            tokio::select! {
                ended = self.running.join_next() => match ended {
                    Some(Ok((vm, ended))) => return Some(self.ended(vm, ended)),
                    // The task panicked, which is a bug and was logged; this VM is missing in the summary.
                    Some(Err(_)) => self.start_more(),
                    None => return Some(self.summed_up()),
                },
                _ = self.beat.tick() => return Some(line(&ManyExecEvent::Heartbeat)),
            }
        }
    }

    fn start_more(&mut self) {
        while self.running.len() < self.concurrency {
            let Some(vm) = self.waiting.next() else { return };
            let job = Arc::clone(&self.job);
            self.running.spawn(async move {
                let ended = super::collect(&job.api, &vm, &job.plan, &job.patience).await;
                (vm.name().clone(), ended)
            });
        }
    }

    fn ended(&mut self, vm: VmName, ended: Result<Finished, CallError>) -> Bytes {
        match ended {
            Ok(finished) => {
                if finished.is_success() {
                    self.summary.succeeded += 1;
                } else {
                    self.summary.failed += 1;
                }
                line(&ManyExecEvent::Result { vm, result: Box::new(finished.result) })
            }
            Err(error) => {
                self.summary.problems += 1;
                let outcome = outcome(&error);
                let problem = ApiError::exec(&vm, error);
                let problem = Box::new(problem.into_problem(self.job.request_id.as_str()));
                line(&ManyExecEvent::Problem { vm, outcome, problem })
            }
        }
    }

    fn summed_up(&mut self) -> Bytes {
        self.over = true;
        let ManyExecSummary { total, succeeded, failed, problems, skipped } = self.summary;
        self.note.outcome(|| {
            format!(
                "{total} vms: {succeeded} succeeded, {failed} failed, {problems} problems, \
                 {skipped} skipped"
            )
        });
        line(&ManyExecEvent::Summary(self.summary))
    }
}

/// Returns the outcome for a call that failed: the program was not started, or its end is unknown.
fn outcome(error: &CallError) -> Outcome {
    if error.may_have_executed() {
        return Outcome::Lost { reason: error.to_string() };
    }
    let (kind, errno) = match error {
        CallError::Agent(error) => (error.code.map_or(StartFailure::Other, kind), error.errno),
        CallError::Encode(_) => (StartFailure::ArgumentListTooLong, None),
        _ => (StartFailure::Other, None),
    };
    Outcome::FailedToStart { kind, errno }
}

fn kind(code: AgentCode) -> StartFailure {
    match code {
        AgentCode::CommandNotFound => StartFailure::NotFound,
        AgentCode::CommandNotExecutable => StartFailure::NotExecutable,
        AgentCode::UserNotFound => StartFailure::UnknownUser,
        AgentCode::CwdNotFound => StartFailure::Cwd,
        AgentCode::ArgumentListTooLong => StartFailure::ArgumentListTooLong,
        _ => StartFailure::Other,
    }
}
