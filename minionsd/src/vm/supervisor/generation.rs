//! Restored and cloned guests: the next generation and its restore steps, before the VM becomes ready.
//!
//! ```text
//!   answer ─▶ token unknown to the agent, count that did not grow, or a client's request?
//!                │ no                    │ yes
//!                ▼                       ▼
//!             ready              `restore` ─▶ done: event, another health check, ready
//!                                        ├──▶ running: unreachable (restoring), next probe soon, later less often;
//!                                        │    after the time limit of the steps: unreachable (restore_failed)
//!                                        └──▶ failed: unreachable (restore_failed), again after RETRY
//! ```

use super::{Supervisor, SupervisorState};
use crate::vm::generation::ProbeCounts;
use crate::vm::guest_text::{bounded, clipped};
use crate::vm::{restore, vmm_token};
use minions_api::Timestamp;
use minions_api::event::EventKind;
use minions_api::restore::{RestoreReport, RestoreState, RestoreStep};
use minions_api::vm::Failure;
use minions_proto::connection::ExchangeError;
use minions_proto::message::{AgentInfo, BootId, Feature, Health, InstanceId, TokenCheck};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest id of an agent with generations, in bytes: the limit of ids in `restore`.
const MAX_ID_LEN: usize = 64;

/// Deadline for the reply to `restore`. The agent replies within a second, also while steps run.
const RESTORE_DEADLINE: Duration = Duration::from_secs(3);

/// Deadline for the health check after a restore.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// Shortest pause before the agent is asked again while steps run. The agent itself waits for their end before it replies.
const SOON: Duration = Duration::from_millis(100);

/// Part of the time since the first request that the pause is, while steps run.
const PAUSE_PART: u32 = 10;

/// Pause before failed steps run again without a request of a client: their hooks may be expensive.
const RETRY: Duration = Duration::from_secs(30);

/// Pause between two probes of a guest whose steps have failed and are not due, and longest pause while steps run.
const NOT_DUE: Duration = Duration::from_secs(5);

/// Facts about generations that the supervisor keeps between two probes.
#[derive(Debug)]
pub(super) struct GenerationState {
    counts: ProbeCounts,
    /// Number of the last request of a client to restore the guest.
    pub(super) asked: watch::Receiver<u64>,
    /// Number of the last request that was carried out.
    carried_out: u64,
    /// Instance whose steps have failed, and the time from which they run again.
    retry: Option<(InstanceId, Instant)>,
    /// Steps that are waited for.
    awaited: Option<AwaitedSteps>,
    /// Restore that has begun: the boot of the guest, and the instance whose next generation is made. Until its steps
    /// have succeeded, the VM does not become ready, also if a request was lost or the agent was restarted.
    begun: Option<(BootId, InstanceId)>,
}

/// Steps of a guest that this daemon has asked for, and that have not ended.
#[derive(Debug)]
struct AwaitedSteps {
    parent: InstanceId,
    /// Time of the first request.
    since: Instant,
    /// True if the guest was asked after it had reported that they failed.
    is_failure_asked: bool,
    /// True once they have exceeded their time limit.
    is_overdue: bool,
}

impl GenerationState {
    pub(super) fn new(asked: watch::Receiver<u64>) -> Self {
        let counts = ProbeCounts::default();
        Self { counts, asked, carried_out: 0, retry: None, awaited: None, begun: None }
    }

    /// Returns what this agent needs.
    fn next(&mut self, agent: &AgentInfo) -> NextStep {
        let is_rewound = self.counts.is_rewound(agent);
        let is_asked = *self.asked.borrow_and_update() > self.carried_out;
        self.begun.take_if(|(boot, _)| *boot != agent.boot_id);
        let next = self.wanted(agent, is_rewound, is_asked);
        if let NextStep::Restore(parent) = &next {
            self.begun = Some((agent.boot_id.clone(), parent.clone()));
        }
        next
    }

    fn wanted(&mut self, agent: &AgentInfo, is_rewound: bool, is_asked: bool) -> NextStep {
        let present = || NextStep::Restore(agent.instance_id.clone());
        let parent = || agent.parent_instance_id.clone().map_or_else(present, NextStep::Restore);
        match agent.restore {
            Some(RestoreState::Required) => present(),
            _ if is_rewound => present(),
            Some(RestoreState::Running) => parent(),
            Some(RestoreState::Failed) if is_asked => parent(),
            Some(RestoreState::Failed) => self.failed(agent).unwrap_or_else(parent),
            Some(RestoreState::Done | RestoreState::Other) | None => match &self.begun {
                // The steps have ended since the last reply: the same request gets their report.
                Some((_, begun)) if agent.parent_instance_id.as_ref() == Some(begun) => {
                    NextStep::Restore(begun.clone())
                }
                Some(_) => present(),
                None if is_asked => present(),
                None => NextStep::Nothing,
            },
        }
    }

    /// Returns the pause of a guest whose steps have failed; `None` if the guest is asked now.
    fn failed(&mut self, agent: &AgentInfo) -> Option<NextStep> {
        let known = self.retry.as_ref().filter(|(instance, _)| *instance == agent.instance_id);
        let retry_at = known.map(|(_, at)| *at);
        let is_own =
            |steps: &&mut AwaitedSteps| agent.parent_instance_id.as_ref() == Some(&steps.parent);
        if let Some(awaited) = self.awaited.as_mut().filter(is_own)
            && !awaited.is_failure_asked
        {
            // They have failed since the last reply: the agent reports that once, and repeats them only then.
            awaited.is_failure_asked = true;
            self.retry_later(agent.instance_id.clone());
            return None;
        }
        if retry_at.is_some_and(|at| Instant::now() < at) {
            return Some(NextStep::Pause);
        }
        self.retry_later(agent.instance_id.clone());
        retry_at.is_none().then_some(NextStep::Failed)
    }

    fn retry_later(&mut self, instance: InstanceId) {
        self.retry = Some((instance, Instant::now() + RETRY));
    }

    /// Returns the steps of the guest that was made of `parent`, which have not ended.
    fn unfinished(&mut self, parent: &InstanceId) -> &mut AwaitedSteps {
        self.awaited.take_if(|steps| steps.parent != *parent);
        self.awaited.get_or_insert_with(|| AwaitedSteps {
            parent: parent.clone(),
            since: Instant::now(),
            is_failure_asked: false,
            is_overdue: false,
        })
    }
}

/// Need of a guest with respect to generations.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NextStep {
    Nothing,
    /// The next generation of this instance must be made or completed.
    Restore(InstanceId),
    /// Steps have failed before this daemon asked for them. They are repeated later: their hooks may be expensive.
    Failed,
    /// Steps have failed, and are not due yet.
    Pause,
}

/// Returns the pause before the next request for steps that have been waited for this long.
fn pause_after(waited: Duration) -> Duration {
    (waited / PAUSE_PART).clamp(SOON, NOT_DUE)
}

/// Result of a probe with respect to generations.
pub(super) enum SettledProbe {
    /// The VM is ready, according to this health, which was asked for at this time.
    Ready(Box<Health>, SystemTime),
    /// The VM is not ready: the next probe is due after this pause.
    Waiting(Duration),
}

impl Supervisor {
    /// Makes sure that a restored guest has run its restore steps.
    ///
    /// Not cancel safe: if the future is dropped, the connection cannot be used any more.
    pub(super) async fn settle_generation(
        &self,
        hold: &mut SupervisorState,
        health: Box<Health>,
        asked: SystemTime,
    ) -> SettledProbe {
        let agent = health.agent.as_ref().filter(|agent| agent.supports(Feature::Generations));
        let agent = agent.filter(|agent| has_usable_ids(agent));
        let Some(agent) = agent else { return SettledProbe::Ready(health, asked) };
        let parent = match hold.generations.next(agent) {
            NextStep::Nothing => return SettledProbe::Ready(health, asked),
            NextStep::Restore(parent) => parent,
            NextStep::Pause => return SettledProbe::Waiting(NOT_DUE),
            NextStep::Failed => {
                let message = format!(
                    "the guest was restored; a required step failed before this daemon asked for it; the steps run again in {} s",
                    RETRY.as_secs()
                );
                self.wait(Failure::RestoreFailed, message, agent, None);
                return SettledProbe::Waiting(NOT_DUE);
            }
        };
        let number = *hold.generations.asked.borrow();
        let request = match self.restore.request(&self.name, parent.clone()) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("the guest was restored; no random numbers for it: {error}");
                self.wait(Failure::Restoring, message, agent, None);
                return SettledProbe::Waiting(NOT_DUE);
            }
        };
        let Some(connection) = hold.line.connection() else {
            return SettledProbe::Waiting(SOON);
        };
        let replied = connection.call(&request, Instant::now() + RESTORE_DEADLINE).await;
        let report = match replied {
            Ok(restored) => restore::report(restored),
            Err(ExchangeError::Agent(error)) => refused(agent, &parent, clipped(error.message)),
            Err(error) => {
                hold.line.hang_up();
                let message = format!("the guest was restored; `restore` failed: {error}");
                return self.unfinished(hold, agent, &parent, message, None, number);
            }
        };
        self.reported(hold, agent, &parent, report, number).await
    }

    /// Publishes that steps have not ended, and that they count as failed after their time limit.
    fn unfinished(
        &self,
        hold: &mut SupervisorState,
        agent: &AgentInfo,
        parent: &InstanceId,
        message: String,
        report: Option<RestoreReport>,
        number: u64,
    ) -> SettledProbe {
        let steps = hold.generations.unfinished(parent);
        let (waited, limit) = (steps.since.elapsed(), self.restore.steps_limit(&self.name));
        if waited < limit {
            self.wait(Failure::Restoring, message, agent, report);
            return SettledProbe::Waiting(pause_after(waited));
        }
        let message = format!("{message}; they have not ended within {} s", limit.as_secs_f64());
        if !std::mem::replace(&mut steps.is_overdue, true) {
            tracing::warn!(vm = %self.name, "{message}");
        }
        hold.generations.carried_out = number;
        self.wait(Failure::RestoreFailed, message, agent, report);
        self.carried_out(number);
        SettledProbe::Waiting(pause_after(waited))
    }

    /// Handles the reply to `restore`, which carries out the client's request of this number.
    async fn reported(
        &self,
        hold: &mut SupervisorState,
        agent: &AgentInfo,
        parent: &InstanceId,
        report: RestoreReport,
        number: u64,
    ) -> SettledProbe {
        match report.state {
            RestoreState::Done => {}
            RestoreState::Running | RestoreState::Required | RestoreState::Other => {
                let message = "the guest was restored; its restore steps run".to_owned();
                return self.unfinished(hold, agent, parent, message, Some(report), number);
            }
            RestoreState::Failed => {
                hold.generations.retry_later(report.instance_id.clone().into());
                hold.generations.awaited = None;
                hold.generations.carried_out = number;
                let failures = restore::failures(&report);
                tracing::warn!(vm = %self.name, failures, "a required restore step failed");
                let message = format!("the guest was restored; required steps failed: {failures}");
                self.wait(Failure::RestoreFailed, message, agent, Some(report));
                self.carried_out(number);
                return SettledProbe::Waiting(NOT_DUE);
            }
        }
        for step in report.steps.iter().filter(|step| !step.ok) {
            tracing::warn!(vm = %self.name, step = step.step, detail = step.detail, "restore step failed");
        }
        let asked = SystemTime::now();
        let probe = TokenCheck { vmm_token: vmm_token::of(&self.pool.connector().socket_id()) };
        let Some(connection) = hold.line.connection() else {
            return SettledProbe::Waiting(SOON);
        };
        let Ok(health) = connection.call(&probe, Instant::now() + PROBE_DEADLINE).await else {
            hold.line.hang_up();
            let message = "the agent did not answer after the restore".to_owned();
            self.wait(Failure::Restoring, message, agent, None);
            return SettledProbe::Waiting(SOON);
        };
        hold.generations.carried_out = number;
        (hold.generations.begun, hold.generations.awaited) = (None, None);
        if let Some(agent) = &health.agent {
            // Records the number of this health check.
            hold.generations.counts.is_rewound(agent);
            self.restored(agent, report);
        }
        self.carried_out(number);
        SettledProbe::Ready(Box::new(health), asked)
    }

    /// Publishes that the guest is a new generation, whose restore this daemon has seen, before the VM becomes ready.
    fn restored(&self, agent: &AgentInfo, report: RestoreReport) {
        let parent = InstanceId::from(report.parent_instance_id.clone());
        let known =
            if has_usable_ids(agent) { self.instances.replace(&self.name, agent) } else { None };
        self.begin_generation(agent, Some(report));
        if known.is_none_or(|known| known.instance != agent.instance_id) {
            self.tell_restored(&parent);
        }
    }

    /// Publishes that the guest is a new generation if another daemon has seen to its restore, before the VM becomes ready.
    /// A guest that was not known before is no news.
    pub(super) fn look_at_generation(&self, agent: &AgentInfo) {
        let known = self.instances.replace(&self.name, agent);
        if let Some(parent) = &agent.parent_instance_id
            && known.is_some_and(|known| known.was_restored_as(agent))
        {
            self.begin_generation(agent, None);
            self.tell_restored(&InstanceId::from(clipped(parent.to_string())));
        }
    }

    fn begin_generation(&self, agent: &AgentInfo, report: Option<RestoreReport>) {
        self.pool.flush();
        self.status.send_modify(|status| {
            status.restored(bounded(agent.clone()), report);
            self.agent.send_replace(status.for_calls());
        });
    }

    /// Publishes the event of a new generation of the guest `parent`.
    pub(super) fn tell_restored(&self, parent: &InstanceId) {
        let parent_vm = self.owners.other_owner(parent, &self.name);
        let kind = if parent_vm.is_some() { EventKind::VmCloned } else { EventKind::VmRestored };
        tracing::info!(vm = %self.name, event = kind.as_str(), %parent, "the guest was restored");
        let mut event = self.event(kind, None);
        (event.parent, event.parent_vm) = (Some(parent.to_string()), parent_vm);
        self.events.publish(event);
    }

    /// Publishes that the VM is not ready for this reason.
    fn wait(
        &self,
        failure: Failure,
        message: String,
        agent: &AgentInfo,
        report: Option<RestoreReport>,
    ) {
        self.change(|status| status.restoring(failure, message, agent, report, Timestamp::now()));
    }

    /// Publishes that clients' requests up to this number were carried out.
    fn carried_out(&self, number: u64) {
        self.status.send_modify(|status| status.restores_carried_out = number);
    }
}

/// Reports whether the ids of an agent are short enough to be kept and sent. Those of `minions-agent` are; an agent with
/// longer ones gets no restore steps.
pub(super) fn has_usable_ids(agent: &AgentInfo) -> bool {
    let instance = agent.instance_id.as_str();
    instance.len() <= MAX_ID_LEN && agent.boot_id.as_str().len() <= MAX_ID_LEN
}

/// Returns the report about an agent that refuses `restore`.
fn refused(agent: &AgentInfo, parent: &InstanceId, detail: String) -> RestoreReport {
    let step = RestoreStep { step: "restore".into(), ok: false, detail, duration_ms: 0 };
    RestoreReport {
        state: RestoreState::Failed,
        generation: agent.generation.unwrap_or_default(),
        instance_id: clipped(agent.instance_id.clone().into()),
        parent_instance_id: clipped(parent.clone().into()),
        steps: vec![step],
        at: Timestamp::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::generation::tests::agent as described;
    use tokio::time::advance;

    fn agent(instance: &str, count: u64, restore: Option<RestoreState>) -> AgentInfo {
        AgentInfo { restore, ..described(instance, count) }
    }

    /// Returns the description of the agent `y`, the next generation of `x`.
    fn generation(count: u64, restore: RestoreState) -> AgentInfo {
        AgentInfo { parent_instance_id: Some("x".into()), ..agent("y", count, Some(restore)) }
    }

    fn restore(parent: &str) -> NextStep {
        NextStep::Restore(parent.into())
    }

    fn state() -> (GenerationState, watch::Sender<u64>) {
        let asked = watch::Sender::new(0);
        (GenerationState::new(asked.subscribe()), asked)
    }

    #[test]
    fn an_agent_with_long_ids_gets_no_restore_steps() {
        let [fits, long] = [MAX_ID_LEN, MAX_ID_LEN + 1].map(|len| "x".repeat(len));
        assert!(has_usable_ids(&AgentInfo {
            boot_id: fits.as_str().into(),
            ..agent(&fits, 1, None)
        }));
        assert!(!has_usable_ids(&agent(&long, 1, None)));
        assert!(!has_usable_ids(&AgentInfo { boot_id: long.into(), ..agent("x", 1, None) }));
    }

    #[test]
    fn a_rewind_whose_request_was_lost_is_not_forgotten() {
        let (mut state, _asked) = state();
        assert_eq!(state.next(&agent("x", 5, None)), NextStep::Nothing);
        assert_eq!(state.next(&agent("x", 3, None)), restore("x"));
        assert_eq!(state.next(&agent("x", 6, None)), restore("x"), "the request was lost");
        let done = generation(7, RestoreState::Done);
        assert_eq!(state.next(&done), restore("x"), "the report is outstanding");
        state.begun = None;
        assert_eq!(state.next(&generation(8, RestoreState::Done)), NextStep::Nothing);
    }

    #[test]
    fn a_restarted_agent_does_not_skip_the_steps_of_its_guest() {
        let (mut state, _asked) = state();
        assert_eq!(state.next(&agent("x", 1, Some(RestoreState::Required))), restore("x"));
        assert_eq!(state.next(&agent("another", 1, None)), restore("another"));
        let rebooted = AgentInfo { boot_id: "c".into(), ..agent("third", 1, None) };
        let next = state.next(&rebooted);
        assert_eq!(next, NextStep::Nothing, "another boot has its own random numbers");
    }

    #[test]
    fn a_request_of_a_client_makes_one_generation_however_long_the_steps_run() {
        let (mut state, asked) = state();
        asked.send_replace(1);
        assert_eq!(state.next(&agent("x", 1, None)), restore("x"));
        assert_eq!(state.next(&generation(2, RestoreState::Running)), restore("x"));
        assert_eq!(state.next(&generation(3, RestoreState::Done)), restore("x"));
    }

    #[tokio::test(start_paused = true)]
    async fn steps_that_failed_unseen_are_repeated_after_a_pause() {
        let (mut state, asked) = state();
        let mut count = 0;
        let mut next = |state: &mut GenerationState| {
            count += 1;
            state.next(&generation(count, RestoreState::Failed))
        };
        assert_eq!(next(&mut state), NextStep::Failed);
        for _ in 0..2 {
            advance(RETRY - Duration::from_secs(1)).await;
            assert_eq!(next(&mut state), NextStep::Pause);
            advance(Duration::from_secs(1)).await;
            assert_eq!(next(&mut state), restore("x"));
            assert_eq!(next(&mut state), NextStep::Pause, "the reply was lost");
        }
        asked.send_replace(1);
        assert_eq!(next(&mut state), restore("x"), "a client does not wait");
        state.carried_out = 1;
        // Another generation has a pause of its own.
        advance(RETRY).await;
        let other = AgentInfo {
            parent_instance_id: Some("y".into()),
            ..agent("z", 1, Some(RestoreState::Failed))
        };
        assert_eq!(state.next(&other), NextStep::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_of_steps_that_are_waited_for_is_asked_for_once() {
        let (mut state, _asked) = state();
        assert_eq!(state.next(&generation(1, RestoreState::Running)), restore("x"));
        state.unfinished(&"x".into());
        assert_eq!(state.next(&generation(2, RestoreState::Failed)), restore("x"));
        // An earlier version of the agent repeats them instead.
        state.unfinished(&"x".into());
        assert_eq!(state.next(&generation(3, RestoreState::Failed)), NextStep::Pause);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longer_steps_run_the_less_often_they_are_asked_for() {
        let (mut state, _asked) = state();
        let mut pauses = Vec::new();
        for _ in 0..100 {
            let steps = state.unfinished(&"x".into());
            pauses.push(pause_after(steps.since.elapsed()));
            advance(*pauses.last().unwrap()).await;
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!((pauses[0], pauses[99]), (SOON, NOT_DUE));
        let other = state.unfinished(&"y".into()).since;
        assert_eq!(other.elapsed(), Duration::ZERO, "another restore has its own time");
    }
}
