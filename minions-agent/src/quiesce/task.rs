//! The task that owns one quiesce, from its hooks to its end.

use super::error::{QuiesceFailure, QuiesceStep};
use super::event_hooks::{self, HOOKS_DEADLINE, HookEvent, HooksNotRun};
use super::freezing::{BlockingSteps, FrozenMounts, StuckThreads};
use super::frozen_set::{self, FrozenSet};
use super::keeper::timer_at;
use super::mounts::FreezableMount;
use super::requests::{QuiesceRequests, StopReason};
use super::{EndedQuiesce, QuiescePhase, QuiesceState, RegisteredQuiesce, marker};
use crate::boot_clock::{self, milliseconds};
use crate::error_chain;
use crate::hooks::HookReport;
use crate::lock::lock;
use crate::task::spawn_blocking;
use crate::watched::watch;
use minions_proto::message::{HookRun, Quiesce, Quiesced, Thawed};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

pub(super) struct QuiesceTask {
    registered: RegisteredQuiesce,
    id: String,
    call: Quiesce,
    lease: Duration,
    /// Begin of the lease on the boot clock.
    started: Option<Duration>,
    stuck: StuckThreads,
}

/// A quiesce in effect.
struct HeldQuiesce {
    timer: AsyncFd<OwnedFd>,
    /// End of the lease on the boot clock.
    until: Duration,
    /// `None` if only synced.
    frozen: Option<FrozenMounts>,
}

/// End of a quiesce that was in effect.
struct QuiesceEnd {
    cause: EndCause,
    /// Mount points of the file systems that were thawed.
    thawed: Vec<String>,
}

enum EndCause {
    ThawRequested,
    LeaseOver,
    /// Without the keeper, the end of the freeze is not certain.
    KeeperEnded,
    /// Another process has thawed these file systems.
    Interference(Vec<String>),
}

impl EndCause {
    /// Returns the continuation of "the quiesce …".
    fn in_words(&self) -> String {
        match self {
            Self::ThawRequested => "was thawed on request".into(),
            Self::LeaseOver => "ended with its lease".into(),
            Self::KeeperEnded => "ended because its keeper was ended".into(),
            Self::Interference(thawed) => {
                let thawed = thawed.join(", ");
                format!("ended before its lease, because another process thawed {thawed}")
            }
        }
    }
}

impl QuiesceTask {
    pub(super) fn new(
        registered: RegisteredQuiesce,
        id: String,
        call: Quiesce,
        lease: Duration,
    ) -> Self {
        Self { registered, id, call, lease, started: None, stuck: StuckThreads::default() }
    }

    fn shared(&self) -> &Arc<QuiesceState> {
        &self.registered.0
    }

    pub(super) async fn run(mut self, mut requests: QuiesceRequests) {
        let (thawed, failure) = match self.quiesce(&mut requests).await {
            Ok(held) => {
                let QuiesceEnd { cause, thawed } = held.end(&mut requests).await;
                let how = cause.in_words();
                tracing::info!(id = self.id, "quiesce {how}");
                self.over(&mut requests, how, matches!(cause, EndCause::ThawRequested));
                (thawed, None)
            }
            Err(failure) => {
                tracing::warn!(id = self.id, error = error_chain(&failure), "quiesce failed");
                let is_thawed = requests.has_order();
                self.over(&mut requests, "failed".into(), is_thawed);
                (Vec::new(), Some(failure))
            }
        };
        let quiesced = self.started.map(|started| boot_clock::now().saturating_sub(started));
        let quiesced_ms = quiesced.map_or(0, milliseconds);
        let run_hooks = self.call.hooks;
        let hooks =
            if run_hooks { event_hooks::run_after(self.shared()).await } else { Vec::new() };
        marker::clear(self.shared()).await;
        let reply = Thawed { id: self.id.clone(), quiesced_ms, thawed, hooks, already: false };
        self.close(&reply, requests.has_order());
        let Self { registered, mut stuck, .. } = self;
        let registered = (!stuck.is_empty()).then_some(registered);
        requests.finish(failure.map(Into::into), &reply);
        stuck.ended().await;
        drop(registered);
    }

    /// Brings the guest into the state, and replies. If a step fails, what was frozen is thawed again.
    async fn quiesce(
        &mut self,
        requests: &mut QuiesceRequests,
    ) -> Result<HeldQuiesce, QuiesceFailure> {
        self.mark().await?;
        let hooks = self.run_hooks_before(requests).await?;
        let freeze_fs = self.call.freeze_fs;
        let mut steps = BlockingSteps { requests, lease: None, stuck: &mut self.stuck };
        // Before other requests are refused: a file system that does not respond must not block the guest.
        let set = steps.open(freeze_fs).await?;
        let started = boot_clock::now();
        self.started = Some(started);
        let until = started + self.lease;
        let timer = timer_at(until).map_err(io::Error::from).and_then(watch);
        let timer = timer.map_err(QuiesceFailure::Timer)?;
        self.enter(QuiescePhase::Quiesced { until });
        let program = self.shared().settings.program.clone();
        let mut steps = BlockingSteps { requests, lease: Some(&timer), stuck: &mut self.stuck };
        steps.sync(&set).await?;
        let frozen = if freeze_fs { Some(steps.freeze(set, program, until).await?) } else { None };
        let held = HeldQuiesce { timer, until, frozen };
        let reply = held.reply(self.id.clone(), hooks);
        match requests.begin(reply) {
            Ok(()) => Ok(held),
            Err(reason) => {
                held.thaw().await;
                Err(QuiesceFailure::stopped(QuiesceStep::Freeze, reason))
            }
        }
    }

    /// Writes the marker for the next agent.
    async fn mark(&self) -> Result<(), QuiesceFailure> {
        let (shared, hooks) = (Arc::clone(self.shared()), self.call.hooks);
        let marked = spawn_blocking(move || shared.marker.set(hooks)).await;
        match marked.map_err(io::Error::other).and_then(|marked| marked) {
            // If the agent and the keeper were killed, the file systems would stay frozen.
            Err(error) if self.call.freeze_fs => Err(QuiesceFailure::Marker(error)),
            Err(error) => {
                tracing::warn!(%error, "if this agent is killed, the next one will not run the thaw hooks");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Runs the freeze hooks, unless a thaw is requested or the requester leaves.
    async fn run_hooks_before(
        &self,
        requests: &mut QuiesceRequests,
    ) -> Result<Vec<HookRun>, QuiesceFailure> {
        if !self.call.hooks {
            return Ok(Vec::new());
        }
        let reports =
            event_hooks::run(self.shared(), HookEvent::Freeze, requests.stopped(None)).await;
        let reports = reports.map_err(|error| match error {
            HooksNotRun::Unusable(error) => QuiesceFailure::Hooks(error),
            HooksNotRun::Slow => QuiesceFailure::SlowHooks(HOOKS_DEADLINE),
            HooksNotRun::Stopped(reason) => QuiesceFailure::stopped(QuiesceStep::Hooks, reason),
        })?;
        if let Some(HookReport { path, detail, .. }) = reports.iter().find(|report| !report.ok) {
            let (path, detail) = (path.clone(), detail.clone());
            return Err(QuiesceFailure::Hook { path, detail });
        }
        Ok(reports.into_iter().map(event_hooks::on_wire).collect())
    }

    fn enter(&self, phase: QuiescePhase) {
        if let Some(active) = &mut lock(&self.shared().stage).active {
            active.phase = phase;
        }
    }

    /// Answers other requests again. Unless a thaw request has ended the quiesce, all thaw requests are refused from now
    /// on, also those that have arrived already: their requesters must learn that the quiesce ended before.
    fn over(&self, requests: &mut QuiesceRequests, how: String, is_thawed: bool) {
        self.enter(if is_thawed { QuiescePhase::Thawed } else { QuiescePhase::Over });
        let (id, at) = (self.id.clone(), boot_clock::now());
        lock(&self.shared().stage).ended = Some(EndedQuiesce { id, how, at, reply: None });
        if !is_thawed {
            requests.refuse_orders();
        }
    }

    /// Keeps the reply to a thaw for repetitions of it. From now on, no thaw request waits for this quiesce.
    fn close(&self, reply: &Thawed, is_thawed: bool) {
        let mut stage = lock(&self.shared().stage);
        if let Some(active) = &mut stage.active {
            active.phase = QuiescePhase::Over;
            active.waits_for = self.stuck.described();
        }
        if let Some(ended) = stage.ended.as_mut().filter(|_| is_thawed) {
            ended.reply = Some(reply.clone());
        }
    }
}

impl HeldQuiesce {
    fn reply(&self, id: String, hooks: Vec<HookRun>) -> Quiesced {
        let (mut frozen, mut not_frozen) = (Vec::new(), Vec::new());
        if let Some(held) = &self.frozen {
            let (members, others) = held.set.divided();
            frozen.extend(members.into_iter().map(FreezableMount::on_wire));
            not_frozen.extend(others.into_iter().map(FreezableMount::on_wire));
        }
        let lease_ms = milliseconds(self.until.saturating_sub(boot_clock::now()));
        Quiesced { id, lease_ms, frozen, not_frozen, hooks }
    }

    /// Waits for the end of the quiesce, and thaws the file systems.
    async fn end(self, requests: &mut QuiesceRequests) -> QuiesceEnd {
        let until = self.until;
        let cause = match self.wait(requests).await {
            // The keeper may have thawed the guest already, although this process has not noticed its timer yet.
            EndCause::ThawRequested if boot_clock::now() >= until => EndCause::LeaseOver,
            cause => cause,
        };
        let ThawedMounts { thawed, before } = self.thaw().await;
        let is_early = boot_clock::now() < until && !matches!(cause, EndCause::KeeperEnded);
        let cause =
            if is_early && !before.is_empty() { EndCause::Interference(before) } else { cause };
        QuiesceEnd { cause, thawed }
    }

    async fn wait(&self, requests: &mut QuiesceRequests) -> EndCause {
        let keeper_ended = async {
            let ended = self.frozen.as_ref().map(|frozen| frozen.keeper.ended().and_then(watch));
            match ended {
                None => std::future::pending().await,
                Some(Err(_)) => {}
                Some(Ok(ended)) => drop(ended.readable().await),
            }
        };
        tokio::select! {
            biased;
            () = keeper_ended => EndCause::KeeperEnded,
            reason = requests.stopped(Some(&self.timer)) => match reason {
                StopReason::ThawRequested => EndCause::ThawRequested,
                // Its requester has the reply, so only the lease is left.
                StopReason::LeaseOver | StopReason::RequesterLeft => EndCause::LeaseOver,
            },
        }
    }

    /// Thaws the file systems, and ends the keeper.
    async fn thaw(self) -> ThawedMounts {
        let Some(frozen) = self.frozen else { return ThawedMounts::default() };
        // If no thread can be started, the file systems are thawed when `frozen` is dropped.
        let thawing = spawn_blocking(move || {
            let thawed = ThawedMounts::of(&frozen.set);
            drop(frozen);
            thawed
        });
        thawing.await.unwrap_or_default()
    }
}

/// Mount points of file systems that were thawed.
#[derive(Default)]
struct ThawedMounts {
    thawed: Vec<String>,
    /// File systems that were not frozen any more, with their types.
    before: Vec<String>,
}

impl ThawedMounts {
    fn of(set: &FrozenSet) -> Self {
        let (members, _) = set.divided();
        let thawed = members.iter().map(|mount| mount.mount_point().display().to_string());
        let thawed = thawed.collect();
        Self { thawed, before: set.thaw().into_iter().map(frozen_set::named).collect() }
    }
}
