//! Supervisor of a VM: the only task that writes the VM's state.
//!
//! It keeps its own connection to the agent ([`line`](super::line)) and sends health checks on it: on a schedule,
//! when that connection or the VMM ends (so that the end of a VM shows at once), and when calls fail or were
//! refused.
//!
//! It publishes in this order: first the pool, so that no call gets a dead connection; then the state, first for calls;
//! then the event, so that a reader of the event sees the state.

mod generation;
mod presence;
mod socket;
mod step;

pub(crate) use presence::Verdict;

use super::announce::ReceivedAnnouncement;
use super::backoff;
use super::declared_settings::clock_limit;
use super::ending::EndingKind;
use super::generation::{InstanceOwners, LastInstances};
use super::line::{ProbeAnswer, ProbeConnection, ProbeEvent};
use super::look_slot::LookSlot;
use super::network_news::NetworkNews;
use super::probe_error::ProbeError;
use super::process::WatchedProcess;
use super::quiesce_lease::HostLease;
use super::restore::RestorePlan;
use super::samples::SampleSeries;
use super::status::{AgentIdentity, StateChange, VmStatus};
use crate::agent::{AgentStatus, CallOutcomes, Listener, Permission, Pool, SocketId};
use crate::clock::ClockKeeper;
use crate::events::EventHistory;
use crate::metrics::Meters;
use generation::{GenerationState, SettledProbe};
use minions_api::event::{Event, EventKind};
use minions_api::vm::{Failure, VmState};
use minions_api::{Timestamp, VmName};
use minions_proto::message::{Feature, Health};
use presence::SocketPresence;
use rand::RngExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use step::at_step;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Time after an answer within which the end of the connection counts as early, and delays the next probe.
const EARLY: Duration = Duration::from_secs(1);

/// Minimum pause between probes that callers trigger.
const NUDGE_GAP: Duration = Duration::from_millis(100);

/// Pause from which probes are aligned to steps: for a shorter one, a step is too long.
const STEPS_FROM: Duration = Duration::from_secs(1);

/// Supervises one VM until it is told to stop.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) name: VmName,
    pub(crate) pool: Pool,
    /// Part of the status that decides on calls.
    pub(crate) agent: watch::Sender<AgentStatus>,
    pub(crate) status: watch::Sender<VmStatus>,
    pub(crate) nudge: Arc<Notify>,
    pub(crate) calls: Arc<CallOutcomes>,
    pub(crate) events: EventHistory,
    pub(crate) meters: Arc<Meters>,
    pub(crate) clock_limit: Option<Duration>,
    pub(crate) restore: RestorePlan,
    pub(super) owners: InstanceOwners,
    pub(super) instances: LastInstances,
    pub(crate) network_news: NetworkNews,
    pub(crate) stop: CancellationToken,
    /// Socket that has the VM's name; `None` while its VMM has removed it.
    pub(crate) socket: watch::Receiver<Option<SocketId>>,
    /// Last requested end of the guest.
    pub(crate) asked: watch::Receiver<Option<EndingKind>>,
    /// Lease of the quiesced guest.
    pub(crate) lease: HostLease,
    /// Place for looks for drift.
    pub(crate) look_slot: LookSlot,
    /// Samples of the guest's figures.
    pub(crate) samples: SampleSeries,
    /// Last announcement of the agent.
    pub(super) announced: watch::Receiver<Option<ReceivedAnnouncement>>,
    /// Number of the last client's request to restore the guest.
    pub(crate) restores: watch::Receiver<u64>,
}

/// State that the supervisor keeps between two events.
struct SupervisorState {
    line: ProbeConnection,
    /// Process that listens on the socket.
    vmm: Option<WatchedProcess>,
    clock: ClockKeeper,
    generations: GenerationState,
    /// Number of changes of the guest's network in the last answer.
    network_changes: Option<u64>,
    presence: SocketPresence,
    socket: watch::Receiver<Option<SocketId>>,
    asked: watch::Receiver<Option<EndingKind>>,
    listeners: watch::Receiver<Option<Listener>>,
    announced: watch::Receiver<Option<ReceivedAnnouncement>>,
    /// Time at which the next probe is due.
    due: Instant,
    /// Time at which the last probe ended.
    probed_at: Instant,
    /// Number of times in a row that the connection broke within [`EARLY`] of an answer.
    early_deaths: u32,
    /// True if the connection broke after the last answer.
    broke: bool,
}

impl Supervisor {
    /// Runs until `stop`, or until the VM is gone or replaced; then closes the VM's connections.
    pub(crate) async fn run(self) -> Option<Verdict> {
        let verdict = tokio::select! {
            () = self.stop.cancelled() => None,
            verdict = self.supervise() => Some(verdict),
        };
        self.owners.remove(&self.name);
        self.pool.gate().close();
        self.pool.flush();
        verdict
    }

    async fn supervise(&self) -> Verdict {
        let now = Instant::now();
        let mut hold = SupervisorState {
            line: ProbeConnection::to_port(self.pool.connector().port()),
            vmm: None,
            clock: ClockKeeper::default(),
            generations: GenerationState::new(self.restores.clone()),
            network_changes: None,
            presence: SocketPresence::There,
            socket: self.socket.clone(),
            asked: self.asked.clone(),
            listeners: self.pool.connector().listeners(),
            announced: self.announced.clone(),
            due: now,
            probed_at: now,
            early_deaths: 0,
            broke: false,
        };
        hold.line.probe();
        loop {
            self.pool.gate().set(self.permission(&hold));
            if let Some(verdict) = self.turn(&mut hold).await {
                return verdict;
            }
        }
    }

    /// Waits for one event and handles it.
    async fn turn(&self, hold: &mut SupervisorState) -> Option<Verdict> {
        let rests = !hold.line.is_busy() && !hold.presence.is_absent();
        tokio::select! {
            biased;
            Ok(()) = hold.socket.changed() => return self.socket_changed(hold),
            () = hold.presence.news(&mut hold.listeners) => return self.look_at_socket(hold),
            heard = hold.line.next(self.pool.connector()) => return self.heard(hold, heard).await,
            Ok(()) = hold.announced.changed() => self.announced(hold),
            Ok(()) = hold.asked.changed() => self.asked_to_end(hold),
            Ok(()) = hold.generations.asked.changed() => hold.line.probe(),
            failure = self.calls.too_many_failed() => {
                self.calls_failed(failure);
                hold.line.verify();
            }
            () = ended(hold.vmm.as_ref()) => return self.vmm_ended(hold),
            // A call failed or was refused.
            () = self.nudge.notified(), if rests => {
                hold.due = hold.due.min(hold.probed_at + NUDGE_GAP);
            }
            () = sleep_until(hold.due), if rests => {
                if hold.line.is_connected() {
                    hold.early_deaths = 0;
                }
                hold.line.probe();
            }
        }
        None
    }

    /// Returns the permission for calls.
    fn permission(&self, hold: &SupervisorState) -> Permission {
        let access = self.status.borrow().call_access();
        hold.presence.permission(access, || hold.line.permission())
    }

    /// Handles an event on the connection and plans the next probe.
    async fn heard(&self, hold: &mut SupervisorState, heard: ProbeEvent) -> Option<Verdict> {
        let now = Instant::now();
        if let Some(at) = hold.line.take_connected() {
            self.note(|status| status.connected(at));
        }
        if !hold.presence.is_there() {
            return self.heard_of_unidentified(hold, now);
        }
        match heard {
            ProbeEvent::Answered(answer) => {
                let late = answer.late;
                hold.broke = false;
                let waits = self.probe_answered(hold, answer).await;
                hold.probed_at = Instant::now();
                let pause = match waits {
                    Some(pause) => pause,
                    None if late => backoff(1, 1.0),
                    None => self.samples.before_due(self.pause()),
                };
                hold.due = self.plan(hold.probed_at, pause);
            }
            ProbeEvent::Failed(error, took) => {
                self.meters.probed(took, Some(error.failure));
                self.look_at_vmm(hold);
                self.look_for_end(hold, error.failure);
                self.failed(error);
                self.spare(hold);
                hold.probed_at = now;
                hold.due = self.plan(now, self.pause());
            }
            ProbeEvent::Broke => {
                hold.broke = true;
                let early = hold.probed_at + EARLY > now;
                hold.early_deaths = if early { hold.early_deaths + 1 } else { 0 };
                // A guest that repeatedly answers and hangs up is probed no more often than one that does not
                // answer.
                let pause = backoff(hold.early_deaths, random());
                hold.due = hold.due.min(self.plan(now, pause));
            }
            ProbeEvent::SilenceBroke => {
                hold.broke = true;
                // The guest was reset, or its VMM started again: it may answer soon.
                self.status.send_if_modified(|status| {
                    status.expect_soon();
                    false
                });
                hold.due = hold.due.min(self.plan(now, Duration::ZERO));
            }
        }
        None
    }

    /// Handles an answer. Returns the pause before the next probe if the guest waits for its restore steps.
    async fn probe_answered(
        &self,
        hold: &mut SupervisorState,
        answer: ProbeAnswer,
    ) -> Option<Duration> {
        let ProbeAnswer { health, asked, took, late: _, fresh } = answer;
        // Boxed, because few guests are restored and each task has a place for the largest state.
        let settled = Box::pin(self.settle_generation(hold, health, asked)).await;
        let (health, asked) = match settled {
            SettledProbe::Ready(health, asked) => (health, asked),
            SettledProbe::Waiting(pause) => {
                self.meters.probed(took, None);
                self.look_at_vmm(hold);
                return Some(pause);
            }
        };
        if let Some(connection) = hold.line.connection() {
            let declared = &self.restore.declared;
            let limit = || declared.read(|state| clock_limit(state, &self.name, self.clock_limit));
            hold.clock.keep(&self.name, connection, &health, asked, limit).await;
            self.lease.keep(&self.name, connection, &health, asked).await;
            connection.get_mut().rest();
        }
        self.meters.probed(took, None);
        self.look_at_vmm(hold);
        if fresh && self.status.borrow().failed_probes > 0 {
            // Idle connections from before the failure may stay silent forever.
            self.pool.close_idle();
        }
        self.pool.close_parked();
        // The first number after a start of the agent says nothing.
        let before = std::mem::replace(&mut hold.network_changes, health.network_changes);
        if before.is_some() && health.network_changes.is_some() && before != health.network_changes
        {
            self.network_news.tell(&self.name);
        }
        let agent = health.agent.as_ref();
        let reports_samples = health.quiesced.is_none()
            && agent.is_some_and(|agent| agent.supports(Feature::Samples));
        self.answered(*health, Timestamp::now());
        // The state is published, so calls must not be refused while the agent is asked for more.
        self.pool.gate().set(self.permission(hold));
        self.look(&mut hold.line).await;
        self.sample(&mut hold.line, reports_samples).await;
        self.spare(hold);
        None
    }

    /// Makes the regular look for drift if it is due. Boxed, because it is rare and each task has a place for the largest
    /// state.
    async fn look(&self, line: &mut ProbeConnection) {
        let Some(look) = self.look_slot.take_due(Instant::now()) else { return };
        let reply = Box::pin(line.look(&look.request)).await;
        self.look_slot.made(look, reply);
    }

    /// Asks for a sample of the guest's figures if one is due. Boxed as the look is. A sample that fails says nothing about the
    /// VM's state.
    async fn sample(&self, line: &mut ProbeConnection, is_reported: bool) {
        if self.samples.take_due(is_reported) {
            let sample = Box::pin(line.sample()).await;
            self.samples.asked(sample, Timestamp::now());
        }
    }

    /// Frees descriptors for other VMs: closes the own connection if descriptors are short, and evicts idle ones.
    fn spare(&self, hold: &mut SupervisorState) {
        if self.pool.connector().descriptors().are_short() {
            hold.line.hang_up();
        }
        self.pool.evict_idle();
    }

    /// Handles an announcement of the agent, whose content may be wrong: probes the VM.
    fn announced(&self, hold: &mut SupervisorState) {
        let Some(received) = hold.announced.borrow_and_update().clone() else { return };
        self.note(|status| status.announced(received.announcement.boot_id, received.at));
        if hold.presence.is_there() {
            hold.line.announced();
        }
    }

    /// Changes a part of the status for which no reader has to wake up.
    fn note(&self, change: impl FnOnce(&mut VmStatus)) {
        self.status.send_if_modified(|status| {
            change(status);
            false
        });
    }

    fn asked_to_end(&self, hold: &mut SupervisorState) {
        let asked = *hold.asked.borrow_and_update();
        if let Some(kind) = asked {
            tracing::info!(vm = %self.name, ?kind, "the guest was asked to end");
            self.status.send_modify(|status| status.asked_to_end(kind));
        }
    }

    fn vmm_ended(&self, hold: &mut SupervisorState) -> Option<Verdict> {
        tracing::info!(vm = %self.name, "the VMM ended");
        if let Some(verdict) = hold.presence.without_vmm() {
            return Some(verdict);
        }
        // The VMM's connections are dead, even if another process holds them open.
        hold.vmm = None;
        hold.line.hang_up();
        self.pool.flush();
        self.status.send_modify(|status| status.vmm = None);
        hold.line.probe();
        None
    }

    fn pause(&self) -> Duration {
        // The borrow must end before anything is published: a `watch` channel would deadlock.
        self.status.borrow().pause(random())
    }

    /// Returns the time at which the next probe is due, and stores it in the status.
    fn plan(&self, from: Instant, pause: Duration) -> Instant {
        let due = if pause < STEPS_FROM { from + pause } else { at_step(from + pause) };
        let pause = due - from;
        self.status.send_if_modified(|status| {
            status.next_probe = Some(Timestamp(SystemTime::now() + pause));
            // No reader has to wake up for this.
            false
        });
        due
    }

    /// Updates the process that listens on the socket, if the kernel reports another one.
    fn look_at_vmm(&self, hold: &mut SupervisorState) {
        let connector = self.pool.connector();
        let (known, seen) = (hold.vmm.as_ref().map(|vmm| vmm.id.pid), connector.listener());
        if known == seen {
            return;
        }
        hold.vmm = seen.and_then(|pid| WatchedProcess::find(pid, connector.descriptors()));
        let now = hold.vmm.as_ref().map(|vmm| vmm.id.clone());
        let replaced = known.is_some() && now.is_some();
        if replaced {
            tracing::info!(vm = %self.name, "another process listens on the VM's socket");
            self.pool.flush();
        }
        self.status.send_modify(|status| status.vmm = now);
        if replaced {
            self.tell(EventKind::VmReplaced, None);
        }
    }

    /// Ends all connections if the agent is gone: the connection of the probes broke, and no agent listens.
    ///
    /// Some VMMs do not close the connections of a guest that is reset. Its kernel resets each one only when the host sends
    /// data on it, which the client of an idle forward may never do.
    fn look_for_end(&self, hold: &mut SupervisorState, failure: Failure) {
        match failure {
            Failure::AgentClosed => hold.broke = true,
            Failure::NoAgent if std::mem::take(&mut hold.broke) => {
                tracing::info!(vm = %self.name, "the agent is gone, and the connections to it are closed");
                self.pool.flush();
            }
            _ => {}
        }
    }

    fn failed(&self, error: ProbeError) {
        let ProbeError { failure, message } = error;
        match failure {
            // This says nothing about the agent, and minionsd may be unable to open other connections.
            Failure::DaemonExhausted => {}
            // The guest may be paused. Its open connections answer when it resumes, so they must stay open.
            Failure::AgentSilent => {}
            _ => {
                self.pool.close_idle();
                self.pool.close_parked();
            }
        }
        self.change(|status| status.failed(failure, message, Timestamp::now()));
    }

    fn answered(&self, health: Health, now: Timestamp) {
        let mut identity = AgentIdentity::Same;
        let agent = health.agent.as_ref();
        match agent {
            Some(agent) if generation::has_usable_ids(agent) => {
                self.owners.set(&self.name, &agent.instance_id);
                self.look_at_generation(agent);
            }
            Some(_) | None => self.owners.remove(&self.name),
        }
        let parent = agent.and_then(|agent| agent.parent_instance_id.clone());
        self.change(|status| {
            let (who, moved) = status.answered(health, now);
            if who != AgentIdentity::Same {
                self.pool.flush();
                self.samples.begin_boot();
            }
            identity = who;
            moved
        });
        let kind = match identity {
            AgentIdentity::Same => return,
            AgentIdentity::Restarted => EventKind::AgentRestarted,
            AgentIdentity::Rebooted => EventKind::VmRebooted,
            AgentIdentity::Restored => {
                if let Some(parent) = parent {
                    self.tell_restored(&parent);
                }
                return;
            }
        };
        tracing::info!(vm = %self.name, event = kind.as_str(), "the guest or its agent was restarted");
        self.tell(kind, None);
    }

    fn calls_failed(&self, failure: Failure) {
        if failure != Failure::AgentSilent {
            self.pool.close_idle();
        }
        self.change(|status| status.calls_failed(failure, Timestamp::now()));
        // Also if the state did not change: counting starts again with the next call.
        self.calls.succeeded();
    }

    /// Publishes a change, with an event if the state changed.
    fn change(&self, change: impl FnOnce(&mut VmStatus) -> Option<StateChange>) {
        let mut moved = None;
        self.status.send_modify(|status| {
            moved = change(status);
            // No reader of the new state may find its calls refused because of the old one.
            self.agent.send_replace(status.for_calls());
        });
        let Some(moved) = moved else { return };
        if moved.after == VmState::Stale {
            self.owners.remove(&self.name);
        }
        // The change of state resets the count of failed calls. An answered probe alone does not: an agent may
        // answer probes but no calls.
        self.calls.succeeded();
        let (before, after, cause) =
            (moved.before.as_str(), moved.after.as_str(), moved.cause.as_str());
        let failure = self.status.borrow().reason.as_ref().map(|reason| reason.failure.as_str());
        tracing::info!(vm = %self.name, before, after, cause, failure, "vm state");
        self.tell(EventKind::VmState, Some(moved));
    }

    fn tell(&self, kind: EventKind, moved: Option<StateChange>) {
        self.events.publish(self.event(kind, moved));
    }

    fn event(&self, kind: EventKind, moved: Option<StateChange>) -> Event {
        let status = self.status.borrow();
        Event {
            kind,
            at: Timestamp::now(),
            vm: self.name.clone(),
            state: moved.map(|moved| moved.after),
            before: moved.map(|moved| moved.before),
            cause: moved.map(|moved| moved.cause),
            reason: moved.and_then(|_| status.reason.clone()),
            parent: None,
            parent_vm: None,
            configured: None,
            configuration: None,
            incarnation: status.incarnation(),
        }
    }
}

fn random() -> f64 {
    rand::rng().random()
}

/// Waits for the end of a process; forever if none is watched.
async fn ended(vmm: Option<&WatchedProcess>) {
    match vmm {
        Some(vmm) => vmm.ended().await,
        None => std::future::pending().await,
    }
}
