//! Task of the reconciler.

use super::attempt::{AttemptKind, AttemptResult, attempt, guarded};
use super::conditions::VmConditions;
use super::handle::{ApplyAnswer, ReconcileRequest, Reconciler};
use super::lease_ages::LeaseAges;
use super::record::{VmRecord, answer};
use super::schedule::{AttemptSchedule, at_step};
use super::sweep::sweep;
use super::wanted::WantedConfig;
use crate::declared::DeclaredStore;
use crate::events::{EventReader, ReadItem};
use crate::metrics::Meters;
use crate::vm::look_slot::{LOOK_INTERVAL, LookReport};
use crate::vm::{Registry, Vm};
use minions_api::declaration::{ConfigState, DriftPolicy};
use minions_api::event::{Event, EventKind};
use minions_api::vm::VmState;
use minions_api::{Timestamp, VmName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

/// Shortest time between an attempt and a look because the guest's network has changed: attempts change it too, and so may
/// a program of the guest that works against its declaration.
const LOOK_PAUSE: Duration = Duration::from_secs(10);

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
        let (reconciler, asked) = Reconciler::new();
        let events = self.registry.events().follow();
        let revision = self.store.revision();
        let task = ReconcilerTask::new(self);
        (reconciler, task.run(events, revision, asked, stop))
    }
}

/// News about a VM.
#[derive(Debug, Clone, Copy)]
struct VmNews {
    /// The guest must be compared even if its configuration is the same.
    again: bool,
    /// The guest may have lost its addresses.
    is_other_boot: bool,
    /// The news is about this VM, and not about all VMs.
    is_single: bool,
}

/// The task. Only it changes the records, the schedule and the conditions.
pub(super) struct ReconcilerTask {
    pub(super) parts: ReconcilerParts,
    pub(super) records: BTreeMap<VmName, VmRecord>,
    pub(super) schedule: AttemptSchedule,
    pub(super) attempts: JoinSet<(VmName, AttemptKind, AttemptResult)>,
    /// The search for leases that are no longer needed.
    sweeping: JoinSet<()>,
    ages: LeaseAges,
    /// Number of the last regular look.
    pub(super) last_look: u64,
    /// Receives the results of regular looks that are news, from `reports`.
    looks: mpsc::UnboundedReceiver<LookReport>,
    pub(super) reports: mpsc::UnboundedSender<LookReport>,
}

impl ReconcilerTask {
    pub(super) fn new(parts: ReconcilerParts) -> Self {
        let (reports, looks) = mpsc::unbounded_channel();
        let ages = parts.store.read(|state| LeaseAges::at_start(state, Timestamp::now()));
        Self {
            parts,
            records: BTreeMap::new(),
            schedule: AttemptSchedule::default(),
            attempts: JoinSet::new(),
            sweeping: JoinSet::new(),
            ages,
            last_look: 0,
            looks,
            reports,
        }
    }

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
        let news = self.parts.registry.network_news().clone();
        loop {
            self.start_due();
            let next = self.schedule.next_after(Instant::now());
            tokio::select! {
                // Events first: the results of attempts on many VMs are events too, and must not displace those that
                // this task has not read.
                biased;
                () = stop.cancelled() => return,
                item = events.next() => match item {
                    ReadItem::Event(event) => self.happened(&event),
                    // The missed events may be reboots.
                    ReadItem::Reset(_) => self.look_at_all(true).await,
                },
                Some(Ok((vm, kind, result))) = self.attempts.join_next() => {
                    self.ended(&vm, kind, result);
                }
                Some(report) = self.looks.recv() => self.looked(report),
                Some(request) = asked.recv() => self.requested(request),
                changed = news.next() => {
                    changed.iter().for_each(|vm| self.network_changed(vm));
                }
                () = until(next) => {}
                Some(_) = self.sweeping.join_next() => {}
                _ = sweeps.tick() => self.sweep(),
                Ok(()) = revision.changed() => self.look_at_all(false).await,
            }
        }
    }

    /// Starts a search for leases that are no longer needed, unless the last one still waits for the disk.
    fn sweep(&mut self) {
        if self.sweeping.is_empty() {
            let ReconcilerParts { registry, store, conditions, .. } = &self.parts;
            let (registry, store, conditions) =
                (registry.clone(), store.clone(), conditions.clone());
            let ages = self.ages.clone();
            self.sweeping.spawn(async move { sweep(&store, &registry, &conditions, ages).await });
        }
    }

    /// Starts the attempts that are due.
    pub(super) fn start_due(&mut self) {
        let now = Instant::now();
        let records = &self.records;
        let is_failing = |vm: &VmName| records.get(vm).is_some_and(|one| one.failures > 0);
        while let Some(name) = self.schedule.start(now, is_failing) {
            let Some(record) = self.records.get(&name) else {
                self.schedule.ended(&name);
                continue;
            };
            let (vm, store, kind) = (record.vm.clone(), self.parts.store.clone(), record.next);
            let is_off = record.wanted.is_none_or(|wanted| wanted.drift == DriftPolicy::Off);
            if kind.is_look() && is_off {
                self.schedule.ended(&name);
                continue;
            }
            if kind == AttemptKind::Apply {
                // Until its result is known, and after a failure, the guest may have old and new addresses.
                self.parts.conditions.settle(&name, None);
            }
            self.attempts
                .spawn(async move { (name, kind, guarded(attempt(vm, store, kind)).await) });
        }
    }

    /// Plans a look at a guest whose network has changed.
    pub(super) fn network_changed(&mut self, name: &VmName) {
        let Some(record) = self.records.get_mut(name) else { return };
        let looks = record.wanted.is_some_and(|wanted| wanted.drift != DriftPolicy::Off);
        if looks && record.next.is_look() && !self.schedule.is_running(name) {
            record.plan(AttemptKind::Look);
            let now = Instant::now();
            let at = record.attempted_at.map_or(now, |last| (last + LOOK_PAUSE).max(now));
            self.schedule.plan(name, at);
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
        if event.kind == EventKind::VmReplaced
            && let Some(record) = self.records.get_mut(&event.vm)
        {
            record.answer_all(ApplyAnswer::Replaced);
        }
        let becomes_ready = event.state == Some(VmState::Ready);
        let wanted = self.wanted(&event.vm);
        let news = VmNews { again: is_other_boot || becomes_ready, is_other_boot, is_single: true };
        self.update(vm, wanted, news);
    }

    fn wanted(&self, vm: &VmName) -> Option<WantedConfig> {
        self.parts.store.read(|state| WantedConfig::of(state, vm))
    }

    /// Compares all VMs with the declared state. `is_other_boot`: each guest may have lost its addresses.
    pub(super) async fn look_at_all(&mut self, is_other_boot: bool) {
        let Some(vms) = self.parts.registry.vms() else { return };
        let gone: Vec<_> =
            self.records.keys().filter(|name| !vms.contains_key(*name)).cloned().collect();
        gone.iter().for_each(|name| self.gone(name));
        for (at, vm) in vms.values().enumerate() {
            if at % CHUNK == CHUNK - 1 {
                tokio::task::yield_now().await;
            }
            let wanted = self.wanted(vm.name());
            let news = VmNews { again: is_other_boot, is_other_boot, is_single: false };
            self.update(vm.clone(), wanted, news);
        }
    }

    pub(super) fn gone(&mut self, name: &VmName) {
        if let Some(mut record) = self.records.remove(name) {
            record.end_looks();
            record.answer_all(ApplyAnswer::Gone);
        }
        self.schedule.cancel(name);
        self.parts.conditions.forget(name);
    }

    /// Updates the record of a VM.
    fn update(&mut self, vm: Vm, wanted: Option<WantedConfig>, news: VmNews) {
        let VmNews { again, is_other_boot, is_single } = news;
        let name = vm.name().clone();
        let record = self.records.entry(name.clone()).or_insert_with(|| VmRecord::new(vm.clone()));
        if !record.vm.is_same(&vm) {
            record.answer_all(ApplyAnswer::Replaced);
            record.end_looks();
        }
        record.vm = vm;
        let before = std::mem::replace(&mut record.wanted, wanted);
        if is_other_boot {
            record.addresses.clear();
            self.parts.conditions.unsettled(&name, record.vm.ready_at());
        }
        let Some(wanted) = wanted else {
            record.end_looks();
            self.schedule.cancel(&name);
            self.parts.conditions.clear(&name);
            return;
        };
        let is_other = before.is_none_or(|before| wanted.differs_from(&before));
        if !is_other && !again {
            self.keep(&name, wanted);
            return;
        }
        record.plan(AttemptKind::Apply);
        record.failures = 0;
        record.pending_since = Instant::now();
        record.is_outdated = self.schedule.is_running(&name);
        let is_ready = record.vm.state() == VmState::Ready;
        let condition =
            self.parts.conditions.set(&name, ConfigState::Pending, None, wanted.generation);
        // A change of a pool may concern every VM of the host: thousands of events would displace all others, and say
        // only what the caller's reply says. The result for each VM is an event.
        if condition.is_some() && is_single {
            self.publish(&name, ConfigState::Pending);
        }
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
        let Some(record) = self.records.get_mut(name) else { return };
        if wanted.drift == DriftPolicy::Off {
            record.end_looks();
        }
        let is_comparable = match state {
            ConfigState::Applied | ConfigState::Drifted => true,
            ConfigState::Pending | ConfigState::Failed => false,
        };
        let begins_to_look =
            is_comparable && wanted.drift != DriftPolicy::Off && record.look.is_none();
        if may_succeed || is_to_repair {
            record.plan(AttemptKind::Apply);
            record.failures = 0;
            self.schedule.plan(name, Instant::now());
        } else if begins_to_look {
            self.schedule.plan(name, at_step(Instant::now() + LOOK_INTERVAL));
        }
    }

    pub(super) fn requested(&mut self, request: ReconcileRequest) {
        let (name, kind, caller) = match request {
            ReconcileRequest::Apply(vm, answer) => {
                (vm.name().clone(), AttemptKind::Apply, Some((vm, answer)))
            }
            ReconcileRequest::Look(name) => (name, AttemptKind::Look, None),
        };
        // The registry and the declared state may have changed more than this task has seen.
        let vm = self.parts.registry.vms().and_then(|vms| vms.get(&name).cloned());
        let refusal = match (&vm, &caller) {
            (None, _) => Some(ApplyAnswer::Gone),
            (Some(vm), Some((meant, _))) if !vm.is_same(meant) => Some(ApplyAnswer::Replaced),
            (Some(_), _) => None,
        };
        let mut waiting: Vec<_> = caller.into_iter().map(|(_, answer)| answer).collect();
        if let Some(refusal) = refusal {
            return answer(waiting, refusal);
        }
        if let Some(vm) = vm {
            let wanted = self.wanted(&name);
            let news = VmNews { again: false, is_other_boot: false, is_single: true };
            self.update(vm, wanted, news);
        }
        let is_running = self.schedule.is_running(&name);
        let record = self.records.get_mut(&name).filter(|record| record.wanted.is_some());
        let Some(record) = record else { return answer(waiting, ApplyAnswer::NothingDeclared) };
        match kind {
            AttemptKind::Apply => {
                record.plan(AttemptKind::Apply);
                record.is_outdated = is_running;
            }
            AttemptKind::Look if record.next.is_look() => record.plan(AttemptKind::Look),
            // After a change, the guest is compared anyway.
            AttemptKind::Look => {}
        }
        record.waiting[usize::from(is_running)].append(&mut waiting);
        self.schedule.plan(&name, Instant::now());
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}
