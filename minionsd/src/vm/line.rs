//! The supervisor's own connection to the agent, and the health checks on it.
//!
//! ```text
//!                    dial                 ask               answered
//!   no connection ─────────▶ connected ─────────▶ asked ──────────────▶ idle
//!        ▲                                         │  ▲                   │
//!        │        closed, broken                   │  └───────ask─────────┘
//!        └─────────────────────────────────────────┘
//! ```
//!
//! An agent that is silent may be in a guest that is paused. A new connection to such a VM makes some VMMs
//! drop the VM for good, and an answer comes as soon as the VM continues. So a silent connection is kept, its
//! answer awaited however late, and the question repeated on it: a guest that was reset answers a message on
//! a connection that it does not know by a reset, so the connection breaks as soon as the guest is up again.
//! A VM that is silent for [`DIAL_AFTER`] is dialled all the same.

use super::probe_error::ProbeError;
use crate::agent::connector::DIAL_DEADLINE;
use crate::agent::{AgentConnection, ConnectError, Connector, PendingDial, Permission};
use minions_proto::AgentPort;
use minions_proto::connection::ExchangeError;
use minions_proto::foreign_service::ForeignService;
use minions_proto::message::{Health, HealthCheck};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep_until};

/// How long an agent has to answer a health check once it is connected.
pub(super) const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// Silence on an open connection after which a new one is dialled. Longer than most pauses of a VM (a snapshot
/// takes seconds), shorter than the minute after which an operator is alerted.
const DIAL_AFTER: Duration = Duration::from_secs(30);

/// Age of an unanswered dial at which another one is made: without a connection that is asked, and with one.
const REDIAL_AFTER: Duration = Duration::from_secs(10);
const REDIAL_AFTER_SILENCE: Duration = Duration::from_secs(30);

/// Health checks that may be outstanding on one connection: enough for a question every second until the first
/// dial. A request has 27 bytes.
const MAX_OUTSTANDING: usize = 32;

/// An answered probe.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) health: Health,
    /// When the question that was answered last was asked first.
    pub(super) asked: SystemTime,
    pub(super) took: Duration,
    /// The answer came after the end of its probe.
    pub(super) late: bool,
    /// It is the first one on a new connection.
    pub(super) fresh: bool,
}

/// News of the connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// The agent answered.
    Answered(Answer),
    /// The probe under way failed, after this time.
    Failed(ProbeError, Duration),
    /// An idle connection broke.
    Broke,
    /// A connection or a dial that had been silent for longer than a probe takes ended.
    SilenceBroke,
}

/// The connection and what is under way on it.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The agent's port.
    port: AgentPort,
    held: Option<Held>,
    dial: Option<PendingDial>,
    attempt: Option<Attempt>,
    /// What is to be done next: send a health check, start a dial.
    to_ask: bool,
    to_dial: bool,
    /// Only an answer on a new connection counts.
    verify: bool,
}

#[derive(Debug)]
struct Held {
    connection: AgentConnection,
    /// Since when there are health checks without a reply.
    asked: Option<Asked>,
    /// The latest of several replies, of which more are outstanding.
    reply: Option<Health>,
    answered: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    since: Instant,
    wall: SystemTime,
}

/// A probe under way.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    begun: Instant,
    until: Instant,
}

/// What was received on the connection.
enum Received {
    Reply(Result<Health, ExchangeError>),
    /// The connection was idle, and ended.
    End,
}

impl Line {
    /// Creates a line without a connection, to an agent on this port.
    pub(super) fn to_port(port: AgentPort) -> Self {
        Self { port, ..Self::default() }
    }

    /// Begins a probe, if none is under way.
    pub(super) fn probe(&mut self) {
        if self.attempt.is_some() {
            return;
        }
        let begun = Instant::now();
        self.attempt = Some(Attempt { begun, until: begun + PROBE_DEADLINE });
        let dialled = self.dial.as_ref().map(|dial| dial.started.elapsed());
        match &self.held {
            Some(held) => {
                self.to_ask = held.may_be_asked();
                let silence = held.asked.map_or(Duration::ZERO, |asked| asked.since.elapsed());
                self.to_dial =
                    silence >= DIAL_AFTER && dialled.is_none_or(|age| age >= REDIAL_AFTER_SILENCE);
            }
            None => {
                self.attempt = Some(Attempt { begun, until: begun + DIAL_DEADLINE });
                self.to_dial = dialled.is_none_or(|age| age >= REDIAL_AFTER);
            }
        }
    }

    /// Whether a probe is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether there is a connection, silent or not.
    pub(super) fn is_connected(&self) -> bool {
        self.held.is_some()
    }

    /// What calls may do, as far as this connection tells.
    pub(super) fn permission(&self) -> Permission {
        match &self.held {
            None => Permission::Open,
            Some(held) if self.to_ask || held.asked.is_some() => Permission::Asked,
            Some(held) => held.answered.map_or(Permission::Open, Permission::Answered),
        }
    }

    /// Lets only an answer on a new connection count. A connection that is open is asked first: if it is
    /// silent, the VM may be paused, and is not dialled.
    pub(super) fn verify(&mut self) {
        self.verify = true;
        self.probe();
    }

    /// Closes the connection and forgets the dial.
    pub(super) fn hang_up(&mut self) {
        *self = Self { verify: self.verify, ..Self::to_port(self.port) };
    }

    /// The connection, while no reply is outstanding on it.
    pub(super) fn connection(&mut self) -> Option<&mut AgentConnection> {
        self.held.as_mut().filter(|held| held.asked.is_none()).map(|held| &mut held.connection)
    }

    /// Waits for news: the outcome of the probe under way, a late answer, or the end of the connection.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self, connector: &Connector) -> Heard {
        loop {
            if let Some(heard) = self.step(connector).await {
                return heard;
            }
        }
    }

    async fn step(&mut self, connector: &Connector) -> Option<Heard> {
        if self.to_ask {
            return self.ask().await;
        }
        let until = self.attempt.filter(|_| !self.to_dial).map(|attempt| attempt.until);
        tokio::select! {
            // An answer that has arrived in time counts, also if its deadline has passed.
            biased;
            received = received(&mut self.held) => self.received(received),
            started = connector.start(), if self.to_dial => {
                self.to_dial = false;
                match started {
                    Ok(dial) => self.dialling(dial),
                    Err(error) => return self.dialled(Err(error), connector),
                }
                None
            }
            dialled = outcome(&mut self.dial), if !self.to_dial => {
                self.dial = None;
                self.dialled(dialled, connector)
            }
            () = passed(until) => self.unanswered(connector),
        }
    }

    /// Not cancelled in practice: a socket takes 27 bytes at once. If it is, the connection is useless, and
    /// turns out to be broken.
    async fn ask(&mut self) -> Option<Heard> {
        self.to_ask = false;
        let held = self.held.as_mut()?;
        let until = Instant::now() + PROBE_DEADLINE;
        let asked = Asked { since: Instant::now(), wall: SystemTime::now() };
        let sent = held.connection.ask(&HealthCheck {}, until).await;
        match sent {
            Ok(()) => {
                held.asked.get_or_insert(asked);
                None
            }
            Err(error) => self.lost(error),
        }
    }

    fn dialling(&mut self, dial: PendingDial) {
        self.dial = Some(dial);
        if self.held.is_none()
            && let Some(attempt) = &mut self.attempt
        {
            // It waited for its turn.
            attempt.until = Instant::now() + DIAL_DEADLINE;
        }
    }

    fn dialled(
        &mut self,
        dialled: Result<AgentConnection, ConnectError>,
        connector: &Connector,
    ) -> Option<Heard> {
        match dialled {
            Ok(connection) => {
                let held = Held { connection, asked: None, reply: None, answered: None };
                self.held = Some(held);
                self.to_ask = true;
                let now = Instant::now();
                let begun = self.attempt.map_or(now, |attempt| attempt.begun);
                self.attempt = Some(Attempt { begun, until: now + PROBE_DEADLINE });
                None
            }
            Err(error) => {
                connector.failed(&error);
                Some(self.failed(ProbeError::of_dial(&error, connector)))
            }
        }
    }

    fn received(&mut self, received: Received) -> Option<Heard> {
        match received {
            Received::End => {
                self.held = None;
                Some(Heard::Broke)
            }
            Received::Reply(Ok(health)) => {
                let held = self.held.as_mut()?;
                held.reply = Some(health);
                if held.connection.outstanding() > 0 {
                    // The others are on their way: nothing else may be sent before them.
                    let begun = self.attempt.map_or_else(Instant::now, |attempt| attempt.begun);
                    let until = Instant::now() + PROBE_DEADLINE;
                    self.attempt.get_or_insert(Attempt { begun, until });
                    return None;
                }
                self.answered()
            }
            Received::Reply(Err(_))
                if self.held.as_ref().is_some_and(|held| held.reply.is_some()) =>
            {
                self.answered()
            }
            Received::Reply(Err(error)) => self.lost(error),
        }
    }

    /// The last reply, or the last that came.
    fn answered(&mut self) -> Option<Heard> {
        let held = self.held.as_mut()?;
        let (health, asked) = (held.reply.take()?, held.asked.take()?);
        let took = asked.since.elapsed();
        let fresh = held.answered.replace(Instant::now()).is_none();
        held.connection.get_mut().rest();
        if !held.connection.is_reusable() {
            self.held = None;
        }
        if self.verify && !fresh {
            // The VM runs, so it may be dialled.
            self.held = None;
            self.to_dial = true;
            let begun = Instant::now();
            self.attempt = Some(Attempt { begun, until: begun + DIAL_DEADLINE });
            return None;
        }
        self.verify = false;
        self.attempt = None;
        self.dial = None;
        let late = took > PROBE_DEADLINE;
        Some(Heard::Answered(Answer { health, asked: asked.wall, took, late, fresh }))
    }

    /// The connection broke, or what came is no answer.
    fn lost(&mut self, error: ExchangeError) -> Option<Heard> {
        let held = self.held.take();
        if let Some(service) = held.as_ref().and_then(Held::foreign_service) {
            return Some(self.failed(ProbeError::of_foreign_service(self.port, &service)));
        }
        let asked = held.and_then(|held| held.asked);
        let silent = asked.is_some_and(|asked| asked.since.elapsed() >= PROBE_DEADLINE);
        if silent && matches!(error, ExchangeError::Lost { .. }) {
            self.attempt = None;
            return Some(Heard::SilenceBroke);
        }
        Some(self.failed(ProbeError::of_exchange(self.port, error)))
    }

    /// The probe under way failed.
    fn failed(&mut self, error: ProbeError) -> Heard {
        match self.attempt.take() {
            Some(attempt) => Heard::Failed(error, attempt.begun.elapsed()),
            None => Heard::SilenceBroke,
        }
    }

    /// The probe's time is over.
    fn unanswered(&mut self, connector: &Connector) -> Option<Heard> {
        if let Some(dial) = &mut self.dial {
            dial.yield_turn();
        }
        match &self.held {
            Some(held) if held.reply.is_some() => self.answered(),
            Some(held) if held.foreign_service().is_some() => self.lost(ExchangeError::TimedOut),
            Some(_) => {
                Some(self.failed(ProbeError::of_exchange(self.port, ExchangeError::TimedOut)))
            }
            None => {
                let error = ConnectError::Unanswered;
                connector.failed(&error);
                Some(self.failed(ProbeError::of_dial(&error, connector)))
            }
        }
    }
}

impl Held {
    /// Returns the service on the agent's port if it is not an agent.
    fn foreign_service(&self) -> Option<ForeignService> {
        self.connection.foreign_service().filter(|_| self.answered.is_none())
    }

    /// Whether one more health check may be sent: not into a reply that has begun, and only so many.
    fn may_be_asked(&self) -> bool {
        let outstanding = self.connection.outstanding();
        outstanding == 0 || (outstanding < MAX_OUTSTANDING && !self.connection.has_partial_reply())
    }
}

/// Waits for a reply, or for the end of an idle connection; forever without a connection.
///
/// Cancel safe.
async fn received(held: &mut Option<Held>) -> Received {
    match held {
        Some(held) if held.asked.is_some() => {
            Received::Reply(held.connection.answer::<HealthCheck>().await)
        }
        Some(held) => {
            held.connection.dead().await;
            Received::End
        }
        None => std::future::pending().await,
    }
}

/// Waits for the outcome of a dial; forever without one.
///
/// Cancel safe.
async fn outcome(dial: &mut Option<PendingDial>) -> Result<AgentConnection, ConnectError> {
    match dial {
        Some(dial) => dial.outcome().await,
        None => std::future::pending().await,
    }
}

async fn passed(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
