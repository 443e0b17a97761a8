//! Restored and cloned guests: the next generation and its restore steps, before the VM becomes ready.
//!
//! ```text
//!   answer ─▶ token unknown to the agent, count that did not grow, or a client's request?
//!                │ no                    │ yes
//!                ▼                       ▼
//!             ready              `restore` ─▶ done: event, another health check, ready
//!                                        ├──▶ running: unreachable (restoring), next probe soon
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

/// Pause before the agent is asked again while steps run. The agent itself waits for their end before it replies.
const SOON: Duration = Duration::from_millis(100);

/// Pause before failed steps run again without a request of a client: their hooks may be expensive.
const RETRY: Duration = Duration::from_secs(30);

/// Pause between two probes of a guest whose steps have failed and are not due.
const NOT_DUE: Duration = Duration::from_secs(5);

/// Facts about generations that the supervisor keeps between two probes.
#[derive(Debug)]
pub(super) struct GenerationState {
    counts: ProbeCounts,
    /// Number of the last request of a client to restore the guest.
    pub(super) asked: watch::Receiver<u64>,
    /// Number of the last request that was carried out.
    carried_out: u64,
    /// Time from which failed steps run again.
    retry_at: Option<Instant>,
    /// Restore that has begun: the boot of the guest, and the instance whose next generation is made. Until its steps
    /// have succeeded, the VM does not become ready, also if a request was lost or the agent was restarted.
    begun: Option<(BootId, InstanceId)>,
}

impl GenerationState {
    pub(super) fn new(asked: watch::Receiver<u64>) -> Self {
        let counts = ProbeCounts::default();
        Self { counts, asked, carried_out: 0, retry_at: None, begun: None }
    }

    /// Returns the instance whose next generation must be made or completed; `None` if there is nothing to do.
    fn parent(&mut self, agent: &AgentInfo) -> Option<InstanceId> {
        let is_rewound = self.counts.is_rewound(agent);
        let is_asked = *self.asked.borrow_and_update() > self.carried_out;
        self.begun.take_if(|(boot, _)| *boot != agent.boot_id);
        let parent = self.wanted(agent, is_rewound, is_asked);
        if let Some(parent) = &parent {
            self.begun = Some((agent.boot_id.clone(), parent.clone()));
        }
        parent
    }

    fn wanted(&self, agent: &AgentInfo, is_rewound: bool, is_asked: bool) -> Option<InstanceId> {
        let present = || Some(agent.instance_id.clone());
        match agent.restore {
            Some(RestoreState::Required) => present(),
            _ if is_rewound => present(),
            Some(RestoreState::Running) => agent.parent_instance_id.clone().or_else(present),
            Some(RestoreState::Failed) => {
                let is_due = self.retry_at.is_none_or(|at| Instant::now() >= at);
                let parent = agent.parent_instance_id.clone().or_else(present);
                parent.filter(|_| is_asked || is_due)
            }
            Some(RestoreState::Done | RestoreState::Other) | None => match &self.begun {
                // The steps have ended since the last reply: the same request gets their report.
                Some((_, begun)) if agent.parent_instance_id.as_ref() == Some(begun) => {
                    Some(begun.clone())
                }
                Some(_) => present(),
                None => is_asked.then(present).flatten(),
            },
        }
    }
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
        let Some(parent) = hold.generations.parent(agent) else {
            if agent.restore == Some(RestoreState::Failed) {
                return SettledProbe::Waiting(NOT_DUE);
            }
            return SettledProbe::Ready(health, asked);
        };
        let number = *hold.generations.asked.borrow();
        let request = self.restore.request(&self.name, parent.clone());
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
                self.wait(Failure::Restoring, message, agent, None);
                return SettledProbe::Waiting(SOON);
            }
        };
        self.reported(hold, agent, report, number).await
    }

    /// Handles the reply to `restore`, which carries out the client's request of this number.
    async fn reported(
        &self,
        hold: &mut SupervisorState,
        agent: &AgentInfo,
        report: RestoreReport,
        number: u64,
    ) -> SettledProbe {
        match report.state {
            RestoreState::Done => {}
            RestoreState::Running | RestoreState::Required | RestoreState::Other => {
                let message = "the guest was restored; its restore steps run".to_owned();
                self.wait(Failure::Restoring, message, agent, Some(report));
                return SettledProbe::Waiting(SOON);
            }
            RestoreState::Failed => {
                hold.generations.retry_at = Some(Instant::now() + RETRY);
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
        hold.generations.begun = None;
        if let Some(agent) = &health.agent {
            // Records the number of this health check.
            hold.generations.counts.is_rewound(agent);
            self.restored(agent, report);
        }
        self.carried_out(number);
        SettledProbe::Ready(Box::new(health), asked)
    }

    /// Publishes that the guest is a new generation, before the VM becomes ready.
    fn restored(&self, agent: &AgentInfo, report: RestoreReport) {
        let agent = bounded(agent.clone());
        let parent = InstanceId::from(report.parent_instance_id.clone());
        self.pool.flush();
        let mut is_new = true;
        self.status.send_modify(|status| {
            is_new = status.restored(agent, report);
            self.agent.send_replace(status.for_calls());
        });
        if is_new {
            self.tell_restored(&parent);
        }
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
    use minions_proto::message::Features;

    fn agent(instance: &str, count: u64, restore: Option<RestoreState>) -> AgentInfo {
        AgentInfo {
            name: "a".into(),
            version: "1".into(),
            protocol: 2,
            features: Features::default(),
            boot_id: "b".into(),
            instance_id: instance.into(),
            allowed: None,
            generation: Some(0),
            parent_instance_id: None,
            probe_count: Some(count),
            restore,
        }
    }

    fn state() -> (GenerationState, watch::Sender<u64>) {
        let asked = watch::Sender::new(0);
        (GenerationState::new(asked.subscribe()), asked)
    }

    #[test]
    fn a_rewind_whose_request_was_lost_is_not_forgotten() {
        let (mut state, _asked) = state();
        assert_eq!(state.parent(&agent("x", 5, None)), None);
        assert_eq!(state.parent(&agent("x", 3, None)), Some("x".into()));
        assert_eq!(state.parent(&agent("x", 6, None)), Some("x".into()), "the request was lost");
        let done = AgentInfo {
            parent_instance_id: Some("x".into()),
            ..agent("y", 7, Some(RestoreState::Done))
        };
        assert_eq!(state.parent(&done), Some("x".into()), "the report is outstanding");
        state.begun = None;
        assert_eq!(state.parent(&AgentInfo { probe_count: Some(8), ..done }), None);
    }

    #[test]
    fn a_restarted_agent_does_not_skip_the_steps_of_its_guest() {
        let (mut state, _asked) = state();
        assert_eq!(state.parent(&agent("x", 1, Some(RestoreState::Required))), Some("x".into()));
        assert_eq!(state.parent(&agent("another", 1, None)), Some("another".into()));
        let rebooted = AgentInfo { boot_id: "c".into(), ..agent("third", 1, None) };
        assert_eq!(state.parent(&rebooted), None, "another boot has its own random numbers");
    }

    #[test]
    fn a_request_of_a_client_makes_one_generation_however_long_the_steps_run() {
        let (mut state, asked) = state();
        asked.send_replace(1);
        assert_eq!(state.parent(&agent("x", 1, None)), Some("x".into()));
        let next = |count, restore| AgentInfo {
            parent_instance_id: Some("x".into()),
            ..agent("y", count, Some(restore))
        };
        assert_eq!(state.parent(&next(2, RestoreState::Running)), Some("x".into()));
        assert_eq!(state.parent(&next(3, RestoreState::Done)), Some("x".into()));
    }
}
