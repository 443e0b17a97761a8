//! The one task that owns a VM's state.
//!
//! It keeps a connection of its own to the agent and asks it for its health: on a schedule, when
//! that connection or the VMM dies (which is how the death of a VM shows at once), and when calls fail
//! or were turned away. What it learns it publishes; nobody else writes a VM's state.
//!
//! The order in which it says things: first the pool, so that nobody gets a connection to what is gone;
//! then the state; then the event, so that who hears of it sees it.

use super::process::Process;
use super::status::{Identity, Moved, VmStatus, backoff};
use crate::agent::socket::is_no_room;
use crate::agent::{AgentConnection, Calls, Pool};
use crate::clock::ClockKeeper;
use crate::events::Events;
use crate::metrics::Meters;
use minions_api::event::{Event, EventKind};
use minions_api::vm::Failure;
use minions_api::{Timestamp, VmName};
use minions_proto::connection::ExchangeError;
use minions_proto::message::{Health, HealthCheck};
use rand::RngExt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long an agent has to answer a probe once it is connected.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// A connection that dies this soon after an answer was hardly worth making.
const EARLY: Duration = Duration::from_secs(1);

/// However many callers want to know: not more often than this.
const NUDGE_GAP: Duration = Duration::from_millis(100);

/// Probes that are due within this are made at once: the VMs of a host share its wake-ups.
const STEP: Duration = Duration::from_millis(100);

/// For a pause shorter than this, a step is too long.
const STEPS_FROM: Duration = Duration::from_secs(1);

/// Supervises one VM until it is told to stop.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) name: VmName,
    pub(crate) pool: Pool,
    pub(crate) status: watch::Sender<VmStatus>,
    pub(crate) nudge: Arc<Notify>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) events: Events,
    pub(crate) meters: Arc<Meters>,
    pub(crate) clock_limit: Option<Duration>,
    pub(crate) stop: CancellationToken,
}

/// A failed probe.
struct ProbeError {
    failure: Failure,
    message: String,
}

/// What the supervisor has between two probes.
struct Hold {
    /// Its own connection, if the last probe was answered on it.
    own: Option<AgentConnection>,
    /// The process that listens on the socket, watched.
    vmm: Option<Process>,
    clock: ClockKeeper,
    /// How often in a row its connection died right after an answer.
    early_deaths: u32,
}

impl Supervisor {
    /// Runs until `stop`; then closes the VM's connections.
    pub(crate) async fn run(self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.supervise() => {}
        }
        self.pool.flush();
    }

    async fn supervise(&self) {
        let mut hold = Hold {
            own: None,
            vmm: None,
            clock: ClockKeeper::new(self.clock_limit),
            early_deaths: 0,
        };
        loop {
            let begun = Instant::now();
            let probed = self.probe_and_heed_calls(&mut hold).await;
            self.meters.probed(begun.elapsed(), probed.as_ref().err().map(|error| error.failure));
            let probed_at = Instant::now();
            self.look_at_vmm(&mut hold);
            self.record(probed);
            if self.pool.connector().descriptors().are_short() {
                // Other VMs want to be asked too.
                hold.own = None;
            }
            self.pool.evict_idle();
            self.wait(&mut hold, probed_at).await;
        }
    }

    /// Waits until the next probe is due, for whatever reason.
    async fn wait(&self, hold: &mut Hold, probed_at: Instant) {
        // Not in one: looking at the status and publishing it exclude each other.
        let pause = self.status.borrow().pause(random());
        let mut due = self.plan(probed_at, pause);
        let mut died_early = false;
        loop {
            tokio::select! {
                () = sleep_until(due) => break,
                () = self.nudged(probed_at) => break,
                failure = self.calls.too_many_failed() => {
                    self.calls_failed(failure);
                    // The probe that decides goes the whole way.
                    hold.own = None;
                    break;
                }
                () = ended(hold.vmm.as_ref()) => {
                    tracing::info!(vm = %self.name, "the VMM ended");
                    // What it carried leads nowhere, even if somebody holds its connections open.
                    (hold.vmm, hold.own) = (None, None);
                    self.pool.flush();
                    self.status.send_modify(|status| status.vmm = None);
                    break;
                }
                () = died(&mut hold.own) => {
                    hold.own = None;
                    died_early = probed_at.elapsed() < EARLY;
                    hold.early_deaths = if died_early { hold.early_deaths + 1 } else { 0 };
                    // A guest that answers and hangs up, over and over, gets no more of us than one
                    // that doesn't answer.
                    let pause = backoff(hold.early_deaths, random());
                    due = due.min(self.plan(Instant::now(), pause));
                }
            }
        }
        if !died_early {
            hold.early_deaths = 0;
        }
    }

    /// Says when the next probe is due.
    fn plan(&self, from: Instant, pause: Duration) -> Instant {
        let due = if pause < STEPS_FROM { from + pause } else { at_step(from + pause) };
        let pause = due - from;
        self.status.send_if_modified(|status| {
            status.next_probe = Some(Timestamp(SystemTime::now() + pause));
            // Nobody waits for that.
            false
        });
        due
    }

    /// Probes. Calls that fail meanwhile count at once, however long the probe takes; then another one
    /// decides, over a connection of its own.
    async fn probe_and_heed_calls(&self, hold: &mut Hold) -> Result<Health, ProbeError> {
        tokio::select! {
            probed = self.probe(hold) => return probed,
            failure = self.calls.too_many_failed() => self.calls_failed(failure),
        }
        hold.own = None;
        self.probe(hold).await
    }

    /// Asks the agent over the supervisor's own connection, made anew if there is none.
    ///
    /// Safe to cancel: the connection is then closed.
    async fn probe(&self, hold: &mut Hold) -> Result<Health, ProbeError> {
        let mut connection = match hold.own.take() {
            Some(connection) => connection,
            None => self.pool.connector().connect().await.map_err(|error| ProbeError {
                failure: error.failure(),
                message: error.message(),
            })?,
        };
        let (deadline, asked) = (Instant::now() + PROBE_DEADLINE, SystemTime::now());
        let health = connection.call(&HealthCheck {}, deadline).await.map_err(probe_error)?;
        hold.clock.keep(&self.name, &mut connection, &health, asked).await;
        connection.get_mut().rest();
        hold.own = Some(connection);
        Ok(health)
    }

    /// Finds out who listens on the socket, if that isn't known.
    fn look_at_vmm(&self, hold: &mut Hold) {
        let connector = self.pool.connector();
        let (known, seen) = (hold.vmm.as_ref().map(|vmm| vmm.id.pid), connector.listener());
        if known == seen {
            return;
        }
        hold.vmm = seen.and_then(|pid| Process::find(pid, connector.descriptors()));
        let now = hold.vmm.as_ref().map(|vmm| vmm.id.clone());
        let replaced = known.is_some() && now.is_some();
        if replaced {
            tracing::info!(vm = %self.name, "another process has the VM's socket");
            self.pool.flush();
        }
        self.status.send_modify(|status| status.vmm = now);
        if replaced {
            self.tell(EventKind::VmReplaced, None);
        }
    }

    fn record(&self, probed: Result<Health, ProbeError>) {
        let now = Timestamp::now();
        match probed {
            Ok(health) => self.answered(health, now),
            Err(ProbeError { failure: Failure::DaemonExhausted, message }) => {
                // Says nothing about the agent, and its connections may be the only ones to be had.
                self.change(|status| status.failed(Failure::DaemonExhausted, message, now));
            }
            Err(ProbeError { failure, message }) => {
                self.pool.close_idle();
                self.change(|status| status.failed(failure, message, now));
            }
        }
    }

    fn answered(&self, health: Health, now: Timestamp) {
        let mut identity = Identity::Same;
        self.change(|status| {
            let (who, moved) = status.answered(health, now);
            if who != Identity::Same {
                self.pool.flush();
            }
            identity = who;
            moved
        });
        let kind = match identity {
            Identity::Same => return,
            Identity::Restarted => EventKind::AgentRestarted,
            Identity::Rebooted => EventKind::VmRebooted,
        };
        tracing::info!(vm = %self.name, event = kind.as_str(), "another incarnation");
        self.tell(kind, None);
    }

    fn calls_failed(&self, failure: Failure) {
        self.pool.close_idle();
        self.change(|status| status.calls_failed(failure, Timestamp::now()));
        // Also if that changed nothing: from the next one on they count again.
        self.calls.succeeded();
    }

    /// Publishes a change, and tells of it if the state is another one.
    fn change(&self, change: impl FnOnce(&mut VmStatus) -> Option<Moved>) {
        let mut moved = None;
        self.status.send_modify(|status| moved = change(status));
        let Some(moved) = moved else { return };
        // What calls had against the agent is dealt with. Not before: that probes are answered is no
        // answer to them.
        self.calls.succeeded();
        let (before, after, cause) =
            (moved.before.as_str(), moved.after.as_str(), moved.cause.as_str());
        let failure = self.status.borrow().reason.as_ref().map(|reason| reason.failure.as_str());
        tracing::info!(vm = %self.name, before, after, cause, failure, "vm state");
        self.tell(EventKind::VmState, Some(moved));
    }

    fn tell(&self, kind: EventKind, moved: Option<Moved>) {
        let status = self.status.borrow();
        self.events.publish(Event {
            kind,
            at: Timestamp::now(),
            vm: self.name.clone(),
            state: moved.map(|moved| moved.after),
            before: moved.map(|moved| moved.before),
            cause: moved.map(|moved| moved.cause),
            reason: moved.and_then(|_| status.reason.clone()),
            incarnation: status.incarnation(),
        });
    }

    /// Somebody wants to know, and enough time has passed since the last probe.
    async fn nudged(&self, probed_at: Instant) {
        self.nudge.notified().await;
        sleep_until(probed_at + NUDGE_GAP).await;
    }
}

/// The end of the step that an instant is in. All VMs count from the same start.
fn at_step(instant: Instant) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let into = instant.saturating_duration_since(*START).as_nanos() % STEP.as_nanos();
    let left = (STEP.as_nanos() - into) % STEP.as_nanos();
    instant + Duration::from_nanos(u64::try_from(left).unwrap_or_default())
}

fn random() -> f64 {
    rand::rng().random()
}

/// Waits for the end of a connection, or for ever if there is none.
async fn died(own: &mut Option<AgentConnection>) {
    match own {
        Some(connection) => connection.dead().await,
        None => std::future::pending().await,
    }
}

/// Likewise for a process.
async fn ended(vmm: Option<&Process>) {
    match vmm {
        Some(vmm) => vmm.ended().await,
        None => std::future::pending().await,
    }
}

fn probe_error(error: ExchangeError) -> ProbeError {
    let (failure, message) = match error {
        ExchangeError::Lost { source, .. } if is_no_room(&source) => (
            Failure::DaemonExhausted,
            "minionsd has no memory for such a long answer to a health check".to_owned(),
        ),
        ExchangeError::Lost { .. } => {
            (Failure::AgentClosed, "the agent closed the connection".to_owned())
        }
        ExchangeError::TimedOut => {
            (Failure::AgentSilent, "the agent did not answer a health check within 1 s".to_owned())
        }
        ExchangeError::Protocol(error) => {
            (Failure::ProtocolError, format!("what the agent says is not the protocol: {error}"))
        }
        ExchangeError::Agent(_) => {
            (Failure::AgentError, "the agent answers a health check with an error".to_owned())
        }
        // A health check is 23 bytes long.
        ExchangeError::Encode(error) => (Failure::ProtocolError, error.to_string()),
    };
    ProbeError { failure, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_within_a_step_is_due_at_its_end() {
        let first = at_step(Instant::now() + STEP);
        assert_eq!(at_step(first), first);
        for ms in [1, 50, 99, 100] {
            assert_eq!(at_step(first + Duration::from_millis(ms)), first + STEP, "{ms} ms");
        }
        assert_eq!(at_step(first + Duration::from_nanos(1)), first + STEP);
    }
}
