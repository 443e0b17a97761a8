//! The restore steps, in their order.

use super::{machine, ssh_keys};
use crate::agent::Agent;
use crate::boot_clock::milliseconds;
use crate::capability::Capability;
use crate::error_chain;
use crate::hooks::{self, AfterFailure, HookReport, HookSettings};
use crate::ops;
use minions_proto::message::{
    NetworkPlan, RestoreRequest, RestoreStep, RestoreStepKind, SetClock, Thaw,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Longest text of a step, in bytes. The list of steps is in the memory of the host.
const MAX_DETAIL: usize = 512;

/// Directory of the hooks, below the directory of all hooks.
const HOOKS: &str = "restore.d";

/// Limit of step names of a later version that are reported.
const MAX_UNKNOWN: usize = 16;

/// Time limit of one hook if the request has none.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Result of a step: a text for people.
pub(super) type StepResult = Result<String, String>;

/// Runs the steps of a request that has just arrived, as the run of this number.
pub(crate) async fn run(agent: Agent, restore: Arc<RestoreRequest>, run: u64) {
    let received = Instant::now();
    let generations = agent.generations();
    let _one_at_a_time = generations.stepping.lock().await;
    let (agent, restore) = (&agent, &restore);
    let mut reporter = StepReporter { agent, restore, received, run, succeeded: true };
    for kind in RestoreStepKind::ALL {
        if kind == RestoreStepKind::Hostname {
            // A guest that was saved while it was quiesced is still frozen; an error means that it was not quiesced. The
            // thaw hooks and all later steps need the random numbers, the clock and the disks.
            let _ = agent.quiescer().thaw(Thaw::default()).await;
        }
        if kind == RestoreStepKind::Network {
            reporter.roll_back_network().await;
        }
        if restore.steps.iter().any(|name| name == kind.name()) {
            reporter.step(kind).await;
        }
    }
    let is_unknown = |name: &&String| name.parse::<RestoreStepKind>().is_err();
    for name in restore.steps.iter().filter(is_unknown).take(MAX_UNKNOWN) {
        let unknown = Err("this agent version does not know the step".to_owned());
        reporter.report(clipped(name.clone()), name, unknown, Duration::ZERO);
    }
    let succeeded = reporter.succeeded;
    generations.ended(run, succeeded);
}

struct StepReporter<'a> {
    agent: &'a Agent,
    restore: &'a Arc<RestoreRequest>,
    received: Instant,
    run: u64,
    /// False once a required step has failed.
    succeeded: bool,
}

impl StepReporter<'_> {
    fn report(&mut self, step: String, kind: &str, result: StepResult, took: Duration) {
        let ok = result.is_ok();
        self.succeeded &= ok || !self.restore.required.iter().any(|required| required == kind);
        let detail = clipped(result.unwrap_or_else(|error| error));
        let step = RestoreStep { step, ok, detail, duration_ms: milliseconds(took) };
        self.agent.generations().stepped(self.run, step);
    }

    async fn step(&mut self, kind: RestoreStepKind) {
        let begun = Instant::now();
        if kind == RestoreStepKind::Hooks && self.permission(kind).is_ok() {
            return self.hooks().await;
        }
        let result = match self.permission(kind) {
            Ok(()) => self.carry_out(kind).await,
            Err(refused) => Err(refused),
        };
        self.report(kind.name().to_owned(), kind.name(), result, begun.elapsed());
    }

    /// Checks that the agent was started with the operation whose requests could do the same.
    fn permission(&self, kind: RestoreStepKind) -> Result<(), String> {
        let needed = match kind {
            RestoreStepKind::Entropy => return Ok(()),
            RestoreStepKind::Clock => Capability::Clock,
            RestoreStepKind::Network => Capability::Network,
            RestoreStepKind::Hostname
            | RestoreStepKind::MachineId
            | RestoreStepKind::SshHostKeys
            | RestoreStepKind::Hooks => Capability::Exec,
        };
        if self.agent.capabilities().contain(needed) {
            return Ok(());
        }
        Err(format!("this agent was started without `{}` (--allow)", needed.name()))
    }

    async fn carry_out(&self, kind: RestoreStepKind) -> StepResult {
        let (etc, restore) = (self.agent.etc_dir().to_owned(), Arc::clone(self.restore));
        let is_reseeded = self.agent.generations().is_reseeded(self.run);
        match kind {
            RestoreStepKind::Entropy => machine::reseed(restore.entropy.bytes()),
            RestoreStepKind::Clock => self.set_clock(),
            RestoreStepKind::Hostname => {
                blocking(move || {
                    let name = restore.hostname.as_deref().ok_or("the host sent no hostname")?;
                    machine::set_hostname(&etc, name)
                })
                .await
            }
            RestoreStepKind::MachineId => {
                let dbus = self.agent.dbus_machine_id().to_owned();
                blocking(move || {
                    is_reseeded?;
                    machine::renew_machine_id(&etc, &dbus)
                })
                .await
            }
            RestoreStepKind::SshHostKeys => {
                is_reseeded?;
                ssh_keys::renew(etc, self.agent.executor()).await
            }
            RestoreStepKind::Network => {
                let network = restore.network.as_ref().ok_or("the host sent no configuration")?;
                let plan = network.plan().map_err(|invalid| invalid.to_string())?;
                self.configure(plan).await
            }
            RestoreStepKind::Hooks => Ok(String::new()),
        }
    }

    /// Sets the clock to the host's time, which was read when the request was sent.
    fn set_clock(&self) -> StepResult {
        let waited = milliseconds(self.received.elapsed());
        let time_unix_ms = self.restore.time_unix_ms.saturating_add(waited);
        let set = ops::set_clock(SetClock { time_unix_ms }).map_err(|error| error.message)?;
        Ok(format!("moved by {} ms", set.step_ms))
    }

    async fn configure(&self, plan: NetworkPlan) -> StepResult {
        let changed = self.agent.network().configure(plan).await;
        changed.map(|done| done.message).map_err(|error| ops::network_failure(error).message)
    }

    /// Rolls back a network change that waits for its confirmation.
    async fn roll_back_network(&mut self) {
        let begun = Instant::now();
        if let Some(result) = self.agent.network().roll_back_pending().await {
            let result =
                result.map(|()| "the unconfirmed network change was rolled back".to_owned());
            self.report("network_rollback".into(), "network", result, begun.elapsed());
        }
    }

    async fn hooks(&mut self) {
        let kind = RestoreStepKind::Hooks.name();
        let begun = Instant::now();
        let limit = self.restore.hook_timeout_ms.map_or(HOOK_TIMEOUT, Duration::from_millis);
        let settings = HookSettings {
            directory: self.agent.hook_dir().join(HOOKS),
            deadline: limit,
            environment: self.agent.generations().variables(),
            after_failure: AfterFailure::Continue,
        };
        // No order stops them.
        let (_stopper, stop) = watch::channel(false);
        let agent = self.agent;
        let mut count = 0;
        let run = hooks::run_each(agent.executor(), &settings, stop, |ended| {
            count += 1;
            self.hook_ended(ended);
        });
        let run = run.await;
        match run {
            Ok(()) if count == 0 => {
                self.report(kind.into(), kind, Ok("no hooks".into()), begun.elapsed());
            }
            Ok(()) => {}
            Err(error) => {
                self.report(kind.into(), kind, Err(error_chain(&error)), begun.elapsed());
            }
        }
    }

    fn hook_ended(&mut self, ended: HookReport) {
        let kind = RestoreStepKind::Hooks.name();
        let step = clipped(format!("{kind}/{}", ended.name()));
        let took = Duration::from_millis(ended.duration_ms);
        let result = if ended.ok { Ok(ended.detail) } else { Err(ended.detail) };
        self.report(step, kind, result, took);
    }
}

/// Runs a part of a step that may wait for a file system.
pub(super) async fn blocking<T: Send + 'static>(
    part: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = crate::task::spawn_blocking(part).await;
    done.unwrap_or_else(|_| Err("the agent is shutting down".to_owned()))
}

fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_DETAIL));
    text
}
