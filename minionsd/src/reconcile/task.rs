//! Task of the reconciler.

use super::attempt::{AttemptKind, AttemptResult, InterfaceAddresses, attempt};
use super::conditions::VmConditions;
use super::handle::{ReconcileRequest, Reconciler};
use super::schedule::{AttemptSchedule, at_step, backoff};
use super::sweep::sweep;
use super::wanted::WantedConfig;
use crate::declared::DeclaredStore;
use crate::events::{EventReader, ReadItem};
use crate::metrics::Meters;
use crate::vm::{Registry, Vm};
use minions_api::declaration::{ConfigState, DriftPolicy};
use minions_api::event::{Event, EventKind};
use minions_api::vm::VmState;
use minions_api::{Timestamp, VmName};
use rand::RngExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

/// Interval between looks for drift, at one VM.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// Interval between searches for leases that are no longer needed.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Number of VMs that are compared with a new revision before other tasks get a turn.
const CHUNK: usize = 256;

/// Parts of the daemon that the reconciler uses.
#[derive(Debug)]
pub(crate) struct ReconcilerParts {
    pub(crate) registry: Registry,
    pub(crate) store: DeclaredStore,
    pub(crate) conditions: VmConditions,
    pub(crate) meters: Arc<Meters>,
}

impl ReconcilerParts {
    /// Returns the handle, and the future of the task, which ends when `stop` is cancelled.
    pub(crate) fn start(
        self,
        stop: CancellationToken,
    ) -> (Reconciler, impl Future<Output = ()> + Send) {
        let parts = self;
        let (reconciler, asked) = Reconciler::new();
        let events = parts.registry.events().follow();
        let revision = parts.store.revision();
        let task = ReconcilerTask {
            parts,
            records: BTreeMap::new(),
            schedule: AttemptSchedule::default(),
            attempts: JoinSet::new(),
        };
        (reconciler, task.run(events, revision, asked, stop))
    }
}

/// State of the reconciler for one VM.
#[derive(Debug)]
struct VmRecord {
    vm: Vm,
    wanted: Option<WantedConfig>,
    /// Kind of the next attempt.
    next: AttemptKind,
    /// Failed attempts in a row.
    failures: u32,
    /// Time at which the VM became ready, or its configuration another one, until it is applied.
    pending_since: Instant,
    /// True if something happened during the running attempt that needs another one.
    is_outdated: bool,
    /// Callers that wait for the running attempt, and for the one after it.
    waiting: [Vec<oneshot::Sender<bool>>; 2],
    /// Addresses that the guest has been given in this boot.
    addresses: InterfaceAddresses,
}

struct ReconcilerTask {
    parts: ReconcilerParts,
    records: BTreeMap<VmName, VmRecord>,
    schedule: AttemptSchedule,
    attempts: JoinSet<(VmName, AttemptKind, AttemptResult)>,
}

impl ReconcilerTask {
    async fn run(
        mut self,
        mut events: EventReader,
        mut revision: watch::Receiver<u64>,
        mut asked: mpsc::Receiver<ReconcileRequest>,
        stop: CancellationToken,
    ) {
        let mut sweeps = interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look_at_all(false).await;
        loop {
            self.start_due();
            let next = self.schedule.next_after(Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                item = events.next() => match item {
                    ReadItem::Event(event) => self.happened(&event),
                    // The missed events may be reboots.
                    ReadItem::Reset(_) => self.look_at_all(true).await,
                },
                Ok(()) = revision.changed() => self.look_at_all(false).await,
                Some(request) = asked.recv() => self.requested(request),
                Some(ended) = self.attempts.join_next() => match ended {
                    Ok((vm, kind, result)) => self.ended(&vm, kind, result),
                    Err(error) => tracing::error!(%error, "an attempt to configure a VM panicked"),
                },
                () = until(next) => {}
                _ = sweeps.tick() => {
                    let ReconcilerParts { registry, store, conditions, .. } = &self.parts;
                    sweep(store, registry, conditions).await;
                }
            }
        }
    }

    /// Starts the attempts that are due.
    fn start_due(&mut self) {
        let now = Instant::now();
        let records = &self.records;
        let is_failing = |vm: &VmName| records.get(vm).is_some_and(|one| one.failures > 0);
        while let Some(name) = self.schedule.start(now, is_failing) {
            let Some(record) = self.records.get(&name) else {
                self.schedule.ended(&name);
                continue;
            };
            let (vm, store, kind) = (record.vm.clone(), self.parts.store.clone(), record.next);
            if kind == AttemptKind::Apply {
                // Until its result is known, and after a failure, the guest may have old and new addresses.
                self.parts.conditions.settle(&name, None);
            }
            self.attempts.spawn(async move { (name, kind, attempt(vm, store, kind).await) });
        }
    }

    /// Handles an event of a VM.
    fn happened(&mut self, event: &Event) {
        let is_other_boot = match event.kind {
            // An event of this task.
            EventKind::VmConfigured => return,
            EventKind::VmState => false,
            EventKind::VmFound
            | EventKind::VmGone
            | EventKind::VmReplaced
            | EventKind::VmRebooted
            | EventKind::VmRestored
            | EventKind::VmCloned
            | EventKind::AgentRestarted => true,
        };
        let vm = self.parts.registry.vms().and_then(|vms| vms.get(&event.vm).cloned());
        let Some(vm) = vm else { return self.gone(&event.vm) };
        let becomes_ready = event.state == Some(VmState::Ready);
        let wanted = self.wanted(&event.vm);
        self.update(vm, wanted, is_other_boot || becomes_ready, is_other_boot);
    }

    fn wanted(&self, vm: &VmName) -> Option<WantedConfig> {
        self.parts.store.read(|state| WantedConfig::of(state, vm))
    }

    /// Compares all VMs with the declared state. `is_other_boot`: each guest may have lost its addresses.
    async fn look_at_all(&mut self, is_other_boot: bool) {
        let Some(vms) = self.parts.registry.vms() else { return };
        let gone: Vec<_> =
            self.records.keys().filter(|name| !vms.contains_key(*name)).cloned().collect();
        gone.iter().for_each(|name| self.gone(name));
        for (at, vm) in vms.values().enumerate() {
            if at % CHUNK == CHUNK - 1 {
                tokio::task::yield_now().await;
            }
            let wanted = self.wanted(vm.name());
            self.update(vm.clone(), wanted, is_other_boot, is_other_boot);
        }
    }

    fn gone(&mut self, name: &VmName) {
        self.records.remove(name);
        self.schedule.cancel(name);
        self.parts.conditions.forget(name);
    }

    /// Updates the record of a VM. `again`: the guest must be compared even if its configuration is the same.
    /// `is_other_boot`: the guest may have lost its addresses.
    fn update(&mut self, vm: Vm, wanted: Option<WantedConfig>, again: bool, is_other_boot: bool) {
        let name = vm.name().clone();
        let record = self.records.entry(name.clone()).or_insert_with(|| VmRecord::new(vm.clone()));
        record.vm = vm;
        let before = std::mem::replace(&mut record.wanted, wanted);
        if is_other_boot {
            record.addresses.clear();
            self.parts.conditions.settle(&name, None);
        }
        let Some(wanted) = wanted else {
            self.schedule.cancel(&name);
            self.parts.conditions.clear(&name);
            return;
        };
        let is_other = before.is_none_or(|before| wanted.differs_from(&before));
        if !is_other && !again {
            self.keep(&name, wanted);
            return;
        }
        record.next = AttemptKind::Apply;
        record.failures = 0;
        record.pending_since = Instant::now();
        record.is_outdated = self.schedule.is_running(&name);
        let is_ready = record.vm.state() == VmState::Ready;
        self.condition(&name, ConfigState::Pending, None, wanted.generation);
        if is_ready {
            self.schedule.plan(&name, Instant::now());
        }
    }

    /// Adopts another generation or drift policy of the same configuration.
    fn keep(&mut self, name: &VmName, wanted: WantedConfig) {
        let Some((state, condition)) = self.parts.conditions.shown(name) else { return };
        if condition.generation != wanted.generation {
            self.parts.conditions.set(name, state, condition.reason, wanted.generation);
        }
        // A pool with another range may have an address now.
        let may_succeed = state == ConfigState::Failed && condition.generation != wanted.generation;
        let is_to_repair = state == ConfigState::Drifted && wanted.drift == DriftPolicy::Repair;
        let looks = state == ConfigState::Applied && wanted.drift != DriftPolicy::Off;
        if may_succeed || is_to_repair {
            if let Some(record) = self.records.get_mut(name) {
                record.next = AttemptKind::Apply;
                record.failures = 0;
            }
            self.schedule.plan(name, Instant::now());
        } else if looks {
            self.schedule.plan(name, at_step(Instant::now() + LOOK_INTERVAL));
        }
    }

    fn requested(&mut self, request: ReconcileRequest) {
        let (name, kind, answer) = match request {
            ReconcileRequest::Apply(name, answer) => (name, AttemptKind::Apply, Some(answer)),
            ReconcileRequest::Look(name) => (name, AttemptKind::Look, None),
        };
        // The declared state may have another revision than this task has seen.
        let vm = self.parts.registry.vms().and_then(|vms| vms.get(&name).cloned());
        if let Some(vm) = vm {
            let wanted = self.wanted(&name);
            self.update(vm, wanted, false, false);
        }
        let is_running = self.schedule.is_running(&name);
        let record = self.records.get_mut(&name).filter(|record| record.wanted.is_some());
        let Some(record) = record else {
            // The caller may have gone.
            let _ = answer.map(|answer| answer.send(false));
            return;
        };
        match kind {
            AttemptKind::Apply => {
                record.next = AttemptKind::Apply;
                record.is_outdated = is_running;
            }
            // After a running or planned change, the guest is compared anyway.
            AttemptKind::Look => {}
        }
        record.waiting[usize::from(is_running)].extend(answer);
        self.schedule.plan(&name, Instant::now());
    }

    /// Handles the end of an attempt.
    fn ended(&mut self, name: &VmName, kind: AttemptKind, result: AttemptResult) {
        self.schedule.ended(name);
        let Some(record) = self.records.get_mut(name) else { return };
        let [current, next] = std::mem::take(&mut record.waiting);
        record.waiting = [next, Vec::new()];
        if std::mem::take(&mut record.is_outdated) {
            // Another attempt is planned. Until it ends, the guest may have old and new addresses.
            self.parts.conditions.settle(name, None);
            return answer(current);
        }
        let Some(wanted) = record.wanted else { return answer(current) };
        match result {
            AttemptResult::Applied { changed, addresses, can_look } => {
                record.addresses.extend(addresses);
                let all = record.addresses.values().flatten().copied().collect();
                self.applied(name, wanted, changed, can_look);
                self.parts.conditions.settle(name, Some(all));
            }
            AttemptResult::Drifted(reason) => self.drifted(name, wanted, reason),
            AttemptResult::Nothing => self.parts.conditions.clear(name),
            AttemptResult::Unreachable(reason) => self.unreachable(name, wanted, kind, reason),
            AttemptResult::Failed(reason) => self.failed(name, wanted, kind, reason),
        }
        answer(current);
    }

    fn applied(&mut self, name: &VmName, wanted: WantedConfig, changed: bool, can_look: bool) {
        let Some(record) = self.records.get_mut(name) else { return };
        record.failures = 0;
        record.next = AttemptKind::Look;
        let took = record.pending_since.elapsed();
        if self.parts.conditions.state(name) != Some(ConfigState::Applied) {
            self.parts.meters.configured.observe(took);
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(vm = %name, changed, ms, generation = wanted.generation, "configuration applied");
        }
        self.condition(name, ConfigState::Applied, None, wanted.generation);
        if wanted.drift != DriftPolicy::Off && can_look {
            self.schedule.plan(name, at_step(Instant::now() + LOOK_INTERVAL));
        }
    }

    fn drifted(&mut self, name: &VmName, wanted: WantedConfig, reason: String) {
        let Some(record) = self.records.get_mut(name) else { return };
        record.failures = 0;
        record.pending_since = Instant::now();
        let repairs = wanted.drift == DriftPolicy::Repair;
        record.next = if repairs { AttemptKind::Apply } else { AttemptKind::Look };
        let pause = if repairs { Duration::ZERO } else { LOOK_INTERVAL };
        tracing::warn!(vm = %name, reason, "the guest differs from its declaration");
        self.condition(name, ConfigState::Drifted, Some(reason), wanted.generation);
        self.schedule.plan(name, Instant::now() + pause);
    }

    /// Handles a VM that could not be reached: its next attempt follows when it is ready.
    fn unreachable(
        &mut self,
        name: &VmName,
        wanted: WantedConfig,
        kind: AttemptKind,
        reason: String,
    ) {
        let Some(record) = self.records.get(name) else { return };
        if record.vm.state() == VmState::Ready {
            return self.failed(name, wanted, kind, reason);
        }
        if kind == AttemptKind::Apply {
            self.condition(name, ConfigState::Pending, Some(reason), wanted.generation);
        }
    }

    fn failed(&mut self, name: &VmName, wanted: WantedConfig, kind: AttemptKind, reason: String) {
        let Some(record) = self.records.get_mut(name) else { return };
        record.failures = record.failures.saturating_add(1);
        let pause = backoff(record.failures, rand::rng().random());
        match kind {
            AttemptKind::Apply => {
                record.next = AttemptKind::Apply;
                tracing::warn!(vm = %name, reason, failures = record.failures, "configuration failed");
                self.condition(name, ConfigState::Failed, Some(reason), wanted.generation);
            }
            // It says nothing about the guest's settings.
            AttemptKind::Look => tracing::debug!(vm = %name, reason, "look for drift failed"),
        }
        self.schedule.plan(name, Instant::now() + pause);
    }

    /// Sets the condition, and publishes an event if its state changed.
    fn condition(
        &self,
        name: &VmName,
        state: ConfigState,
        reason: Option<String>,
        generation: u64,
    ) {
        let changed = self.parts.conditions.set(name, state, reason, generation);
        let Some((vm, _)) = self.records.get(name).map(|record| &record.vm).zip(changed) else {
            return;
        };
        let shown = self.parts.conditions.shown(name);
        self.parts.registry.events().publish(Event {
            kind: EventKind::VmConfigured,
            at: Timestamp::now(),
            vm: name.clone(),
            state: None,
            before: None,
            cause: None,
            reason: None,
            parent: None,
            parent_vm: None,
            configured: Some(state),
            configuration: shown.map(|(_, condition)| condition),
            incarnation: vm.status().incarnation(),
        });
    }
}

impl VmRecord {
    fn new(vm: Vm) -> Self {
        Self {
            vm,
            wanted: None,
            next: AttemptKind::Apply,
            failures: 0,
            pending_since: Instant::now(),
            is_outdated: false,
            waiting: [Vec::new(), Vec::new()],
            addresses: InterfaceAddresses::new(),
        }
    }
}

fn answer(waiting: Vec<oneshot::Sender<bool>>) {
    for one in waiting {
        // The caller may have gone.
        let _ = one.send(true);
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}
