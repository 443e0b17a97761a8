//! Results of attempts, and the conditions that they lead to.

use super::attempt::{AttemptKind, AttemptResult};
use super::handle::ApplyAnswer;
use super::record::answer;
use super::schedule::{at_step, backoff};
use super::task::{LOOK_INTERVAL, ReconcilerTask};
use super::wanted::WantedConfig;
use minions_api::declaration::{ConfigState, DriftPolicy};
use minions_api::event::{Event, EventKind};
use minions_api::vm::VmState;
use minions_api::{Timestamp, VmName};
use rand::RngExt;
use std::time::Duration;
use tokio::time::Instant;

impl ReconcilerTask {
    /// Handles the end of an attempt.
    pub(super) fn ended(&mut self, name: &VmName, kind: AttemptKind, result: AttemptResult) {
        self.schedule.ended(name);
        let Some(record) = self.records.get_mut(name) else { return };
        let [current, next] = std::mem::take(&mut record.waiting);
        record.waiting = [next, Vec::new()];
        record.attempted_at = Some(Instant::now());
        if std::mem::take(&mut record.is_outdated) {
            // Another attempt is planned. Until it ends, the guest may have old and new addresses.
            self.parts.conditions.settle(name, None);
            return answer(current, ApplyAnswer::Ended);
        }
        let Some(wanted) = record.wanted else {
            return answer(current, ApplyAnswer::NothingDeclared);
        };
        match result {
            AttemptResult::Applied { changed, addresses, can_look } => {
                record.addresses.adopt(addresses);
                let all = record.addresses.all();
                // Before the event, whose readers may release the addresses that the guest has no more.
                self.parts.conditions.settle(name, Some(all));
                self.applied(name, wanted, changed, can_look);
            }
            AttemptResult::Drifted(reason) => self.drifted(name, wanted, reason),
            AttemptResult::Nothing => self.parts.conditions.clear(name),
            AttemptResult::Unreachable(reason) => self.unreachable(name, wanted, kind, reason),
            AttemptResult::Failed(reason) => self.failed(name, wanted, kind, reason),
        }
        answer(current, ApplyAnswer::Ended);
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

    pub(super) fn drifted(&mut self, name: &VmName, wanted: WantedConfig, reason: String) {
        let Some(record) = self.records.get_mut(name) else { return };
        record.failures = 0;
        record.pending_since = Instant::now();
        let repairs = wanted.drift == DriftPolicy::Repair;
        record.next = if repairs { AttemptKind::Apply } else { AttemptKind::Look };
        let pause = if repairs { Duration::ZERO } else { LOOK_INTERVAL };
        tracing::warn!(vm = %name, reason, "the guest differs from its declaration");
        self.condition(name, ConfigState::Drifted, Some(reason), wanted.generation);
        if wanted.drift != DriftPolicy::Off {
            self.schedule.plan(name, Instant::now() + pause);
        }
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
            AttemptKind::Look => {
                tracing::debug!(vm = %name, reason, "look for drift failed");
                if wanted.drift == DriftPolicy::Off {
                    return;
                }
            }
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
        if self.parts.conditions.set(name, state, reason, generation).is_some() {
            self.publish(name, state);
        }
    }

    /// Publishes the event of a VM's new condition.
    pub(super) fn publish(&self, name: &VmName, state: ConfigState) {
        let Some(record) = self.records.get(name) else { return };
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
            incarnation: record.vm.status().incarnation(),
        });
    }
}
