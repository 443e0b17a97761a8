//! Results of attempts, and the conditions that they lead to.

use super::attempt::{AttemptKind, AttemptResult};
use super::handle::ApplyAnswer;
use super::record::answer;
use super::schedule::backoff;
use super::task::ReconcilerTask;
use super::wanted::WantedConfig;
use crate::vm::look_slot::{LOOK_INTERVAL, LookNews, LookReport, LookRequest, RegularLook};
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
        // The result decides about further looks.
        record.end_looks();
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
            AttemptResult::Applied { changed, addresses, look } => {
                record.addresses.adopt(addresses);
                let all = record.addresses.all();
                // Before the event, whose readers may release the addresses that the guest has no more.
                self.parts.conditions.settle(name, Some(all));
                self.applied(name, wanted, changed, look);
            }
            AttemptResult::Drifted { reason, look } => self.drifted(name, wanted, reason, look),
            AttemptResult::Nothing => self.parts.conditions.clear(name),
            AttemptResult::Unreachable(reason) => self.unreachable(name, wanted, kind, reason),
            AttemptResult::Failed(reason) => self.failed(name, wanted, kind, reason),
        }
        answer(current, ApplyAnswer::Ended);
    }

    /// Handles the result of a regular look that is news.
    pub(super) fn looked(&mut self, report: LookReport) {
        let LookReport { look, news } = report;
        let RegularLook { vm: name, number, request, .. } = *look;
        let record = self.records.get_mut(&name);
        let Some(record) = record.filter(|record| record.look == Some(number)) else { return };
        record.look = None;
        let Some(wanted) = record.wanted else { return };
        match news {
            // Another connection may be answered.
            LookNews::Unanswered => self.schedule.plan(&name, Instant::now()),
            LookNews::Agrees => self.applied(&name, wanted, false, Some(request)),
            LookNews::Differs(reason) => {
                record.attempted_at = Some(Instant::now());
                self.drifted(&name, wanted, reason, Some(request));
            }
        }
    }

    fn applied(
        &mut self,
        name: &VmName,
        wanted: WantedConfig,
        changed: bool,
        look: Option<LookRequest>,
    ) {
        let Some(record) = self.records.get_mut(name) else { return };
        record.failures = 0;
        record.next = AttemptKind::Look;
        let took = record.pending_since.elapsed();
        let mut pause = LOOK_INTERVAL;
        if self.parts.conditions.state(name) != Some(ConfigState::Applied) {
            // Guests that were configured together are looked at in turns.
            pause = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            self.parts.meters.configured.observe(took);
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(vm = %name, changed, ms, generation = wanted.generation, "configuration applied");
        }
        self.condition(name, ConfigState::Applied, None, wanted.generation);
        if let Some(look) = look.filter(|_| wanted.drift != DriftPolicy::Off) {
            self.look_regularly(name, look, pause, false);
        }
    }

    /// Begins a regular look.
    fn look_regularly(
        &mut self,
        name: &VmName,
        request: LookRequest,
        pause: Duration,
        reports_agreement: bool,
    ) {
        let Some(record) = self.records.get_mut(name) else { return };
        self.last_look += 1;
        record.look = Some(self.last_look);
        record.vm.look_slot().begin(RegularLook {
            vm: name.clone(),
            number: self.last_look,
            request,
            due: Instant::now() + pause,
            reports_agreement,
            reports: self.reports.clone(),
        });
    }

    pub(super) fn drifted(
        &mut self,
        name: &VmName,
        wanted: WantedConfig,
        reason: String,
        look: Option<LookRequest>,
    ) {
        let Some(record) = self.records.get_mut(name) else { return };
        record.failures = 0;
        record.pending_since = Instant::now();
        let repairs = wanted.drift == DriftPolicy::Repair;
        record.next = if repairs { AttemptKind::Apply } else { AttemptKind::Look };
        tracing::warn!(vm = %name, reason, "the guest differs from its declaration");
        self.condition(name, ConfigState::Drifted, Some(reason), wanted.generation);
        match (wanted.drift, look) {
            (DriftPolicy::Repair, _) => self.schedule.plan(name, Instant::now()),
            (DriftPolicy::Report, Some(look)) => {
                self.look_regularly(name, look, LOOK_INTERVAL, true);
            }
            (DriftPolicy::Report, None) | (DriftPolicy::Off, _) => {}
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
