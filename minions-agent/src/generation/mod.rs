//! Generations of the guest: whether it was restored from a snapshot or cloned since the agent's start.
//!
//! ```text
//!   as started ──token never seen──▶ required ──restore──▶ running ──required steps succeed──▶ done
//!       │                               ▲                  ▲     └──one fails──▶ failed           │
//!       │                               │                  └───────restore─────────┘              │
//!       └────────── restore of the present instance ───────┘◀───── the same ────────────────────┘
//! ```
//!
//! In `required`, `running` and `failed`, only health checks and `restore` are answered. Memory is a part of a
//! snapshot, so a restored agent still knows the tokens that it has seen. It never takes a token that it has seen for
//! another VMM: two hosts that name the same VMM differently cause one generation too many, not one per health check.

mod machine;
mod ssh_keys;
mod steps;

pub(crate) use steps::run;

use crate::identity::AgentIdentity;
use crate::lock::lock;
use minions_proto::AgentPort;
use minions_proto::announcement::Announcement;
use minions_proto::message::{
    AgentInfo, InstanceId, RestoreOutcome, RestoreRequest, RestoreState, RestoreStep,
    RestoreStepKind, VmmToken,
};
use minions_proto::{AgentError, ErrorCode, Invalid};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Limit of tokens that are remembered; the oldest one is forgotten first. A daemon on another host cannot reach
/// the guest, so only as many tokens are in use as there are daemons on the host that derive tokens differently.
const MAX_TOKENS: usize = 16;

/// Longest wait of `restore` for the end of the steps. Shorter than the host's deadline for the reply.
const REPLY_WITHIN: Duration = Duration::from_millis(700);

/// Present generation, and the tokens that the agent has seen.
#[derive(Debug)]
pub(crate) struct GenerationTracker {
    identity: AgentIdentity,
    state: Mutex<GenerationState>,
    /// Notifies requests that wait for the end of the steps.
    ended: watch::Sender<()>,
    /// Held while steps run: those of two restores must not run at the same time.
    pub(crate) stepping: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct GenerationState {
    instance_id: InstanceId,
    parent: Option<InstanceId>,
    number: u64,
    probes: u64,
    tokens: VecDeque<VmmToken>,
    restore: Option<RestoreState>,
    steps: Vec<RestoreStep>,
    /// Number of the run of steps whose results count.
    run: u64,
    /// True once a reply has contained the failure of this run.
    is_failure_reported: bool,
}

/// Consequence of a `restore` request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestoreAction {
    /// A new generation begins: the steps run, as the run of this number. `ended` is the previous generation.
    Begin { run: u64, ended: u64 },
    /// The steps of the present generation run again.
    Repeat { run: u64 },
    /// The steps run already, or have ended.
    Report,
}

impl GenerationTracker {
    /// Returns the tracker of a guest in this generation: 0, or the one that an earlier agent of the boot has begun.
    pub(crate) fn new(identity: AgentIdentity, number: u64) -> Self {
        let state = GenerationState {
            instance_id: identity.instance_id.clone(),
            parent: None,
            number,
            probes: 0,
            tokens: VecDeque::new(),
            restore: None,
            steps: Vec::new(),
            run: 0,
            is_failure_reported: false,
        };
        let (ended, stepping) = (watch::Sender::new(()), tokio::sync::Mutex::default());
        Self { identity, state: Mutex::new(state), ended, stepping }
    }

    fn state(&self) -> MutexGuard<'_, GenerationState> {
        lock(&self.state)
    }

    /// Records a health check with this token.
    pub(crate) fn probed(&self, token: &VmmToken) {
        let mut state = self.state();
        state.probes += 1;
        if state.tokens.contains(token) {
            return;
        }
        if !state.tokens.is_empty() {
            tracing::warn!("the guest runs under another VMM: it was restored or cloned");
            state.restore = Some(RestoreState::Required);
            // Steps that still run are those of the guest that was saved.
            state.run += 1;
        }
        if state.tokens.len() == MAX_TOKENS {
            state.tokens.pop_front();
        }
        state.tokens.push_back(token.clone());
    }

    /// Adds the identity and the generation to the agent's description of itself.
    pub(crate) fn describe(&self, agent: AgentInfo) -> AgentInfo {
        let state = self.state();
        AgentInfo {
            boot_id: self.identity.boot_id.clone(),
            instance_id: state.instance_id.clone(),
            generation: Some(state.number),
            parent_instance_id: state.parent.clone(),
            probe_count: Some(state.probes),
            restore: state.restore,
            ..agent
        }
    }

    /// Returns the announcement of the agent, which listens on this port.
    pub(crate) fn announcement(&self, port: AgentPort) -> Announcement {
        let instance_id = self.state().instance_id.clone();
        Announcement::new(port, self.identity.boot_id.clone(), instance_id)
    }

    /// Returns the reason why other requests than health checks and `restore` are refused; `None` if they are not.
    pub(crate) fn refusal(&self) -> Option<AgentError> {
        let message = match self.state().restore? {
            RestoreState::Done | RestoreState::Other => return None,
            RestoreState::Required => {
                "the guest was restored or cloned, and waits for the restore steps of its host"
            }
            RestoreState::Running => "the guest was restored or cloned; the restore steps run",
            RestoreState::Failed => "a required restore step failed",
        };
        Some(AgentError::new(ErrorCode::Restoring, format!("{message}; retry later")))
    }

    /// Decides on a valid `restore` request, and begins the next generation if it asks for one.
    pub(crate) fn begin(&self, restore: &RestoreRequest) -> Result<RestoreAction, AgentError> {
        let mut state = self.state();
        if restore.parent == state.instance_id {
            let ended = state.number;
            state.number += 1;
            state.parent = Some(restore.parent.clone());
            state.instance_id = restore.instance_id.clone();
            tracing::info!(generation = state.number, parent = %restore.parent, "next generation");
            return Ok(RestoreAction::Begin { run: state.start(), ended });
        }
        if state.parent.as_ref() != Some(&restore.parent) {
            let reason =
                format!("is not the present instance, {}, nor its parent", state.instance_id);
            return Err(Invalid::new("parent", reason).into());
        }
        match state.restore {
            // A host that has asked too early learns of the failure before the steps, whose hooks may be expensive, are
            // repeated.
            Some(RestoreState::Failed) if !state.is_failure_reported => Ok(RestoreAction::Report),
            Some(RestoreState::Failed) => Ok(RestoreAction::Repeat { run: state.start() }),
            Some(RestoreState::Required) => {
                let reason = format!(
                    "has been restored since: the present instance is {}",
                    state.instance_id
                );
                Err(Invalid::new("parent", reason).into())
            }
            Some(RestoreState::Running | RestoreState::Done | RestoreState::Other) | None => {
                Ok(RestoreAction::Report)
            }
        }
    }

    /// Reports whether the random numbers were reseeded in this run. Without that, those of two clones can be equal.
    fn is_reseeded(&self, run: u64) -> Result<(), String> {
        let state = self.state();
        let is_done = |step: &RestoreStep| step.ok && step.step == RestoreStepKind::Entropy.name();
        if state.run == run && state.steps.iter().any(is_done) {
            return Ok(());
        }
        Err("needs random numbers, and the step `entropy` has not succeeded".to_owned())
    }

    /// Returns the variables that describe the present generation to a hook.
    fn variables(&self) -> BTreeMap<String, String> {
        let state = self.state();
        let parent = state.parent.as_ref().map_or_else(String::new, ToString::to_string);
        let variables = [
            ("MINIONS_GENERATION", state.number.to_string()),
            ("MINIONS_INSTANCE_ID", state.instance_id.to_string()),
            ("MINIONS_PARENT_INSTANCE_ID", parent),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Records the result of one step of this run.
    pub(crate) fn stepped(&self, run: u64, step: RestoreStep) {
        let RestoreStep { step: name, ok, detail, duration_ms } = &step;
        tracing::info!(step = name, ok, duration_ms, "restore step: {detail}");
        let mut state = self.state();
        if state.run == run {
            state.steps.push(step);
        }
    }

    /// Records the end of this run, unless the guest has been restored again meanwhile.
    pub(crate) fn ended(&self, run: u64, succeeded: bool) {
        let mut state = self.state();
        if state.run == run {
            let end = if succeeded { RestoreState::Done } else { RestoreState::Failed };
            state.restore = Some(end);
        }
        drop(state);
        self.ended.send_replace(());
    }

    /// Returns the state of the restore, after waiting a short time for the end of the steps.
    pub(crate) async fn report(&self, parent: &InstanceId) -> RestoreOutcome {
        let mut ended = self.ended.subscribe();
        let is_over = |(): &()| self.state().restore != Some(RestoreState::Running);
        // After the deadline, the state is reported as it is.
        let _ = timeout(REPLY_WITHIN, ended.wait_for(is_over)).await;
        let mut state = self.state();
        state.is_failure_reported |= state.restore == Some(RestoreState::Failed);
        RestoreOutcome {
            state: state.restore.unwrap_or(RestoreState::Done),
            generation: state.number,
            instance_id: state.instance_id.clone(),
            parent_instance_id: state.parent.clone().unwrap_or_else(|| parent.clone()),
            steps: state.steps.clone(),
        }
    }
}

impl GenerationState {
    /// Starts a run of the steps, and returns its number.
    fn start(&mut self) -> u64 {
        self.run += 1;
        self.restore = Some(RestoreState::Running);
        self.is_failure_reported = false;
        self.steps.clear();
        self.run
    }
}

#[cfg(test)]
mod tests;
