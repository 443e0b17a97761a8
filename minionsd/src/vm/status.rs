//! Status of a VM, as its supervisor publishes it. The state machine is in [`transition`](super::transition).

use super::backoff;
use super::boot_times::BootTimes;
use super::ending::{Ending, EndingKind, ExplainedFailure, ObservedFailure};
use super::guest_text::{bounded, clipped};
use super::process::ProcessId;
use super::transition::{self, Observation};
use crate::agent::{AgentStatus, CallAccess, IncarnationId, RefusalReason, SocketId};
use minions_api::Timestamp;
use minions_api::restore::RestoreReport;
use minions_api::vm::{BootTimeline, Cause, Failure, Incarnation, Reason, VmState};
use minions_proto::message::{AgentInfo, BootId, Health};
use std::sync::Arc;
use std::time::Duration;

/// Interval between probes of a VM that answers, ± 10 % so that the probes of a thousand VMs spread out.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Status that a VM's supervisor publishes.
#[derive(Debug, Clone)]
pub(crate) struct VmStatus {
    pub(crate) state: VmState,
    pub(crate) since: Timestamp,
    pub(crate) cause: Cause,
    /// Reason why the VM is not ready, or why its last probe failed.
    pub(crate) reason: Option<Reason>,
    /// Latest `reason`, kept after it no longer applies.
    pub(crate) last_error: Option<Reason>,
    pub(crate) agent: Option<Arc<AgentInfo>>,
    pub(crate) hostname: Option<String>,
    /// Uptime of the guest in its last answer, in seconds.
    uptime: Option<u64>,
    pub(crate) failed_probes: u32,
    /// Number of failed probes since the last sign that the VM may answer soon; determines the backoff.
    fruitless: u32,
    /// True if the last probe failed because minionsd lacked a resource.
    blind: bool,
    pub(crate) attempts: u64,
    pub(crate) next_probe: Option<Timestamp>,
    pub(crate) last_seen: Option<Timestamp>,
    socket: SocketId,
    /// True if the VMM has created the socket again since the last answer: the next answer is from another boot.
    recreated: bool,
    /// Reboot or poweroff that ends the boot that answered last, if minionsd knows of one.
    ending: Option<Ending>,
    boot: BootTimes,
    /// Process that listens on the socket, if known.
    pub(crate) vmm: Option<ProcessId>,
    /// Last restore of the guest.
    pub(crate) restore: Option<RestoreReport>,
    /// Number of the latest request of a client to treat the guest as restored (`POST …/restored`) that was carried
    /// out.
    pub(crate) restores_carried_out: u64,
}

/// Change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateChange {
    pub(crate) before: VmState,
    pub(crate) after: VmState,
    pub(crate) cause: Cause,
}

/// Agent that answered, compared with the one that answered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AgentIdentity {
    /// Unchanged, or the first agent to answer.
    Same,
    /// The agent started again; the guest did not reboot.
    Restarted,
    /// The guest was restored, and another daemon has run its restore steps.
    Restored,
    /// The guest booted again.
    Rebooted,
}

impl VmStatus {
    /// Returns the status of a VM whose socket was just found.
    pub(crate) fn found(socket: SocketId, now: Timestamp) -> Self {
        Self {
            state: VmState::Connecting,
            since: now,
            cause: Cause::Found,
            reason: None,
            last_error: None,
            agent: None,
            hostname: None,
            uptime: None,
            failed_probes: 0,
            fruitless: 0,
            blind: false,
            attempts: 0,
            next_probe: None,
            last_seen: None,
            socket,
            recreated: false,
            ending: None,
            boot: BootTimes::of_new_socket(now),
            vmm: None,
            restore: None,
            restores_carried_out: 0,
        }
    }

    /// Returns the part of the status that calls depend on.
    pub(crate) fn for_calls(&self) -> AgentStatus {
        AgentStatus { access: self.call_access(), info: self.agent.clone() }
    }

    /// Decides whether calls may be sent.
    pub(crate) fn call_access(&self) -> CallAccess {
        match (self.state, &self.reason) {
            (VmState::Connecting, _) if self.attempts == 0 => CallAccess::Undecided,
            // The probe failed because of minionsd, so the agent may be well.
            (VmState::Connecting, _) if self.blind => CallAccess::Allowed,
            (VmState::Ready, _) | (_, None) => CallAccess::Allowed,
            (VmState::Connecting | VmState::Unreachable | VmState::Stale, Some(reason)) => {
                let Reason { failure, message, .. } = reason.clone();
                CallAccess::Refused(RefusalReason { failure, message })
            }
        }
    }

    /// Reports whether a vanished socket can mean a reboot: the VMM was listening and still runs.
    pub(crate) fn may_reboot(&self) -> bool {
        self.state != VmState::Stale && self.vmm.as_ref().is_some_and(ProcessId::is_alive)
    }

    /// Returns the identity of the VM, its boot and its agent.
    pub(crate) fn incarnation(&self) -> Incarnation {
        let (device, inode) = self.socket.numbers();
        let agent = self.agent.as_deref();
        Incarnation {
            id: agent.map(|agent| IncarnationId::of(agent).into_text()),
            device,
            inode,
            vmm_pid: self.vmm.as_ref().map(|vmm| vmm.pid),
            vmm_start_ticks: self.vmm.as_ref().and_then(|vmm| vmm.started),
            boot_id: agent.map(|agent| agent.boot_id.to_string()),
            instance_id: agent.map(|agent| agent.instance_id.to_string()),
            generation: agent.and_then(|agent| agent.generation),
        }
    }

    /// Records an answered probe.
    pub(crate) fn answered(
        &mut self,
        health: Health,
        now: Timestamp,
    ) -> (AgentIdentity, Option<StateChange>) {
        let agent = health.agent.map(|agent| Arc::new(bounded(agent)));
        let identity = self.compare(agent.as_deref(), health.uptime_secs);
        self.settle_ending(identity);
        let boot = agent.as_ref().map(|agent| &agent.boot_id);
        self.boot.answered(boot, identity == AgentIdentity::Rebooted, now);
        self.attempts += 1;
        self.reason = None;
        (self.failed_probes, self.fruitless) = (0, 0);
        self.blind = false;
        self.last_seen = Some(now);
        self.hostname = Some(clipped(health.hostname));
        self.uptime = Some(health.uptime_secs);
        self.agent = agent;
        (identity, self.enter(Observation::Answered, now))
    }

    /// Records a failed probe.
    pub(crate) fn failed(
        &mut self,
        failure: Failure,
        message: String,
        now: Timestamp,
    ) -> Option<StateChange> {
        self.attempts += 1;
        self.blind = failure == Failure::DaemonExhausted;
        if !self.blind {
            self.failed_probes = self.failed_probes.saturating_add(1);
            self.fruitless = self.fruitless.saturating_add(1);
        }
        let failure = if self.is_being_created(failure) { Failure::NoSocket } else { failure };
        self.give_reason(failure, message, now);
        if self.has_fallen_silent(failure) {
            self.explain_silence(failure);
        }
        self.enter(Observation::Failed { failure, in_a_row: self.failed_probes }, now)
    }

    /// Records an answered probe of a guest that was restored, and whose restore steps have not succeeded yet.
    pub(crate) fn restoring(
        &mut self,
        failure: Failure,
        message: String,
        agent: &AgentInfo,
        report: Option<RestoreReport>,
        now: Timestamp,
    ) -> Option<StateChange> {
        self.attempts += 1;
        // Keeps the agent that answered before, so that the first answer after the restore steps counts as another
        // generation.
        self.agent.get_or_insert_with(|| Arc::new(bounded(agent.clone())));
        (self.failed_probes, self.fruitless) = (0, 0);
        self.blind = false;
        self.last_seen = Some(now);
        if report.is_some() {
            self.restore = report;
        }
        self.give_reason(failure, message, now);
        self.enter(Observation::Restoring, now)
    }

    /// Records the generation of a restored guest whose restore steps have succeeded, with their report if this daemon
    /// has one.
    pub(crate) fn restored(&mut self, agent: AgentInfo, report: Option<RestoreReport>) {
        self.agent = Some(Arc::new(agent));
        if report.is_some() {
            self.restore = report;
        }
    }

    /// Records that the VMM answered `CONNECT` at this time.
    pub(crate) fn connected(&mut self, at: Timestamp) {
        self.boot.connected(at);
    }

    /// Records that the agent announced itself at this time, in the boot with this id.
    pub(crate) fn announced(&mut self, boot: BootId, at: Timestamp) {
        let current = self.agent.as_ref().map(|agent| &agent.boot_id);
        self.boot.announced(clipped(boot.into()).into(), current, at);
    }

    /// Returns the timeline of the current boot, without the time of its configuration.
    pub(crate) fn boot_timeline(&self) -> BootTimeline {
        self.boot.shown()
    }

    /// Records that minionsd asked the guest to end.
    pub(crate) fn asked_to_end(&mut self, kind: EndingKind) {
        self.ending = Some(Ending::now(kind));
    }

    /// Records that the VMM, which still runs, removed its socket (`None`) or created this one.
    pub(crate) fn socket_changed(
        &mut self,
        socket: Option<SocketId>,
        now: Timestamp,
    ) -> Option<StateChange> {
        if self.ending.is_none_or(|ending| ending.kind == EndingKind::Reboot) {
            self.ending = Some(Ending::now(EndingKind::Reboot));
        }
        self.expect_soon();
        let vmm = self.vmm.as_ref().map(ToString::to_string).unwrap_or_default();
        let message = match socket {
            None => format!("its VMM ({vmm}) has removed the socket file"),
            Some(socket) => {
                (self.socket, self.recreated) = (socket, true);
                self.boot = BootTimes::of_new_socket(now);
                format!("its VMM ({vmm}) has created the socket again")
            }
        };
        self.give_reason(Failure::NoSocket, message, now);
        self.enter(Observation::SocketRemoved, now)
    }

    /// Records that three calls in a row failed, the last one at this layer.
    pub(crate) fn calls_failed(&mut self, failure: Failure, now: Timestamp) -> Option<StateChange> {
        let moved = self.enter(Observation::CallsFailed, now);
        if moved.is_some() {
            let message =
                "three calls in a row failed; calls are refused until a probe is answered"
                    .to_owned();
            self.give_reason(failure, message, now);
        }
        moved
    }

    /// Restarts the backoff after a sign that the VM may answer soon.
    pub(crate) fn expect_soon(&mut self) {
        self.fruitless = 0;
    }

    /// Returns the pause before the next probe. `jitter` is a random number from 0 to 1.
    pub(crate) fn pause(&self, jitter: f64) -> Duration {
        match self.failed_probes {
            0 if self.blind => backoff(1, jitter),
            0 => PROBE_INTERVAL.mul_f64(0.9 + 0.2 * jitter),
            _ => backoff(self.fruitless.max(1), jitter),
        }
    }

    /// Compares the agent with the one that answered before. A base agent reports no ids, only the uptime of its guest.
    /// If a base agent answers after one with ids, the guest counts as rebooted.
    fn compare(&self, agent: Option<&AgentInfo>, uptime: u64) -> AgentIdentity {
        let booted_again = self.uptime.is_some_and(|before| uptime < before);
        match (&self.agent, agent) {
            (Some(old), Some(new)) if old.boot_id != new.boot_id => AgentIdentity::Rebooted,
            (Some(old), Some(new)) if old.instance_id == new.instance_id => AgentIdentity::Same,
            // An agent that was restarted has no parent.
            (Some(_), Some(new)) if new.parent_instance_id.is_some() => AgentIdentity::Restored,
            (Some(_), Some(_)) => AgentIdentity::Restarted,
            (Some(_), None) => AgentIdentity::Rebooted,
            (None, _) if self.last_seen.is_none() => AgentIdentity::Same,
            (None, _) if booted_again || self.recreated => AgentIdentity::Rebooted,
            (None, Some(_)) => AgentIdentity::Restarted,
            (None, None) => AgentIdentity::Same,
        }
    }

    /// Forgets the known end of a boot when another boot answers, or when the same one still answers after
    /// [`REBOOT_LIMIT`](super::ending::REBOOT_LIMIT).
    fn settle_ending(&mut self, identity: AgentIdentity) {
        let over = identity == AgentIdentity::Rebooted || self.recreated;
        self.ending = self.ending.filter(|ending| !over && !ending.is_overdue());
        self.recreated = false;
    }

    /// Reports whether the listener is missing because a VMM that still runs is about to call `listen(2)`.
    fn is_being_created(&self, failure: Failure) -> bool {
        failure == Failure::NoListener
            && self.recreated
            && self.vmm.is_some()
            && self.ending.is_some_and(|ending| !ending.is_overdue())
    }

    /// Reports whether the guest has answered before and is silent now, although its VMM runs.
    fn has_fallen_silent(&self, failure: Failure) -> bool {
        matches!(failure, Failure::NoHandshake | Failure::AgentSilent)
            && self.last_seen.is_some()
            && !self.recreated
            && self.vmm.as_ref().is_some_and(ProcessId::is_alive)
    }

    /// Replaces the layer in the reason by its likely cause, unless a known end of the boot is the cause.
    fn explain_silence(&mut self, layer: Failure) {
        for reason in [&mut self.reason, &mut self.last_error].into_iter().flatten() {
            if reason.failure == layer {
                (reason.failure, reason.layer) = (Failure::PausedOrHung, Some(layer));
            }
        }
    }

    fn give_reason(&mut self, failure: Failure, message: String, at: Timestamp) {
        let seen = ObservedFailure {
            failure,
            message: &message,
            recreated: self.recreated,
            vmm: self.vmm.as_ref(),
        };
        let explained = self.ending.and_then(|ending| ending.explain(&seen));
        let reason = match explained {
            Some(ExplainedFailure { failure: why, message, halted }) => {
                Reason { failure: why, layer: Some(failure), halted, message, at }
            }
            None => Reason { failure, layer: None, halted: None, message, at },
        };
        self.last_error = Some(reason.clone());
        self.reason = Some(reason);
    }

    fn enter(&mut self, seen: Observation, now: Timestamp) -> Option<StateChange> {
        let (after, cause) = transition::next(self.state, seen)?;
        let before = std::mem::replace(&mut self.state, after);
        (self.since, self.cause) = (now, cause);
        Some(StateChange { before, after, cause })
    }
}

#[cfg(test)]
mod tests;
