//! `POST /exec`: one program on many VMs, and the selection of these VMs.
//!
//! Each VM has its own task and deadline, so a VM that hangs delays only its own line. The tasks belong to the body of
//! the response: when the caller disconnects, they are dropped, and every program is left.

use super::super::audit::AuditNote;
use super::super::declared::labels;
use super::super::extract::{CallParams, CallerTimeout, JsonBody};
use super::super::if_incarnation;
use super::super::problem::{ApiError, ManyProblems};
use super::super::request_id::RequestId;
use super::super::state::ApiState;
use super::convert::FinishedExec;
use super::lines::{self, line};
use super::request::{self, ExecForm};
use crate::agent::{AgentRefusal, CallError, TransportError};
use crate::exec::{ExecError, ExecPlan};
use crate::vm::Vm;
use crate::vm::registry::Vms;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use minions_api::VmPattern;
use minions_api::exec::{ManyExecEvent, ManyExecRequest, ManyExecSummary, Outcome, StartFailure};
use minions_api::{ErrorCode, VmName};
use minions_proto::Invalid;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::message::HEARTBEAT;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Default number of VMs on which the program runs concurrently.
const CONCURRENCY: u32 = 32;
/// Maximum number of VMs on which the program runs concurrently.
const MAX_CONCURRENCY: u32 = 256;

/// Maximum number of names and patterns in a request.
const MAX_WANTED: usize = 10_000;

/// Maximum number of patterns in a request: each is matched against every VM.
const MAX_PATTERNS: usize = 256;

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
    State(api): State<ApiState>,
    patience: CallerTimeout,
    note: AuditNote,
    request_id: RequestId,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ManyExecRequest>,
) -> Result<Response, ApiError> {
    if_incarnation::refuse(&headers)?;
    note.program(&request.exec.command, &request.exec.args).await?;
    let vms = api.registry.vms().ok_or_else(ApiError::starting)?;
    let vms = select(&request.vms, &vms)?;
    let vms = with_labels(&api, vms, request.label.as_deref())?;
    let plan = request::plan(request.exec, ExecForm::Many).map_err(|error| error.within("exec"))?;
    note.exec(plan.id.as_str());
    let concurrency = match request.concurrency.unwrap_or(CONCURRENCY) {
        some @ 1..=MAX_CONCURRENCY => some,
        other => {
            let reason = format!("is {other}: must be 1 to {MAX_CONCURRENCY}");
            return Err(invalid("concurrency", &reason));
        }
    };
    let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let plan = plan.collected(patience.asked());
    let summary = ManyExecSummary { total: vms.len() as u64, ..ManyExecSummary::default() };
    let all = ManyExecRun {
        job: Arc::new(ManyExecJob { api, plan, patience, request_id }),
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
struct ManyExecJob {
    api: ApiState,
    plan: ExecPlan,
    patience: CallerTimeout,
    request_id: RequestId,
}

/// The runs on all VMs, in progress.
#[derive(Debug)]
struct ManyExecRun {
    job: Arc<ManyExecJob>,
    note: AuditNote,
    waiting: std::vec::IntoIter<Vm>,
    running: JoinSet<(VmName, Result<FinishedExec, ExecError>)>,
    concurrency: usize,
    fail_fast: bool,
    beat: Interval,
    summary: ManyExecSummary,
    over: bool,
}

impl ManyExecRun {
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

    fn ended(&mut self, vm: VmName, ended: Result<FinishedExec, ExecError>) -> Bytes {
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
fn outcome(error: &ExecError) -> Outcome {
    if error.may_have_executed() {
        return Outcome::Lost { reason: error.to_string() };
    }
    let (kind, errno) = match error {
        ExecError::Call(CallError::Refused(AgentRefusal::Answer(error))) => {
            (error.code.map_or(StartFailure::Other, kind), error.errno)
        }
        ExecError::Call(CallError::Transport(TransportError::Encode(_))) => {
            (StartFailure::ArgumentListTooLong, None)
        }
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

/// Returns the selected VMs without duplicates, ordered by name.
///
/// # Errors
///
/// Names the first entry that is an invalid name, a name of no VM, or a pattern without a match.
fn select(wanted: &[String], vms: &Vms) -> Result<Vec<Vm>, ApiError> {
    if wanted.is_empty() {
        return Err(invalid("vms", "is empty; name at least one VM, or use `*` for all"));
    }
    if wanted.len() > MAX_WANTED {
        return Err(invalid("vms", "has more than 10000 entries; use patterns instead"));
    }
    let patterns = wanted.iter().filter(|wanted| is_pattern(wanted)).count();
    if patterns > MAX_PATTERNS {
        return Err(invalid("vms", "has more than 256 patterns"));
    }
    let mut selected: BTreeMap<&VmName, &Vm> = BTreeMap::new();
    for (at, wanted) in wanted.iter().enumerate() {
        let in_field = |error: ApiError| error.within_field(&format!("vms[{at}]"));
        if is_pattern(wanted) {
            selected.extend(matching(wanted, vms).map_err(in_field)?);
        } else {
            selected.extend([named(wanted, vms).map_err(in_field)?]);
        }
    }
    Ok(selected.into_values().cloned().collect())
}

/// Returns the VMs that have the labels.
///
/// # Errors
///
/// The selector is malformed, or no VM has the labels.
fn with_labels(api: &ApiState, mut vms: Vec<Vm>, label: Option<&str>) -> Result<Vec<Vm>, ApiError> {
    let Some(label) = label else { return Ok(vms) };
    let selector = labels::selector(label)?;
    api.declared.read(|state| {
        vms.retain(|vm| state.declarations().has_labels(vm.name(), &selector));
    });
    if vms.is_empty() {
        let detail = format!(
            "none of the selected VMs has the labels {label:?}; GET /vms?label= lists them"
        );
        return Err(ApiError::of(ErrorCode::VmNotFound, detail).within_field("label"));
    }
    Ok(vms)
}

fn is_pattern(wanted: &str) -> bool {
    wanted.contains(['*', '?'])
}

fn named<'v>(wanted: &str, vms: &'v Vms) -> Result<(&'v VmName, &'v Vm), ApiError> {
    let name: VmName = wanted
        .parse()
        .map_err(|error| ApiError::invalid(&Invalid::value("vms", wanted, &format!("{error}"))))?;
    vms.get_key_value(&name).ok_or_else(|| ApiError::vm_not_found(name))
}

fn matching<'v>(wanted: &str, vms: &'v Vms) -> Result<Vec<(&'v VmName, &'v Vm)>, ApiError> {
    let pattern: VmPattern = wanted
        .parse()
        .map_err(|error| ApiError::invalid(&Invalid::value("vms", wanted, &format!("{error}"))))?;
    let found: Vec<_> = vms.iter().filter(|(name, _)| pattern.matches(name)).collect();
    if found.is_empty() {
        let detail = format!("no VM's name matches {wanted:?}; GET /vms lists all VMs");
        return Err(ApiError::of(ErrorCode::VmNotFound, detail));
    }
    Ok(found)
}

fn invalid(field: &str, reason: &str) -> ApiError {
    ApiError::invalid(&Invalid::new(field, reason))
}
