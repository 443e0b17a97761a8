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
//! The guest of a silent agent may be paused. Some VMMs stop serving a paused VM's socket for good when they get a
//! new connection for it, whereas the open connection is answered as soon as the VM resumes. So a silent connection
//! is kept, its answer is accepted however late, and the health check is repeated on it: a guest that was reset does
//! not know the connection and resets it, so the connection breaks as soon as the guest is up again. A VM that is
//! silent for [`DIAL_AFTER`] is dialled nevertheless.

mod open_connection;

use super::look_slot::LookRequest;
use super::probe_error::ProbeError;
use super::vmm_token;
use crate::agent::connector::DIAL_DEADLINE;
use crate::agent::{AgentConnection, ConnectError, Connector, PendingDial, Permission};
use minions_api::Timestamp;
use minions_proto::AgentPort;
use minions_proto::connection::ExchangeError;
use minions_proto::message::{
    ChangeNetwork, GuestSample, Health, HealthCheck, NetworkChanged, ReportSample, TokenCheck,
};
use open_connection::{OpenConnection, OwedReply, PendingCheck};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep_until};

/// Deadline for the answer to a health check on an open connection.
pub(super) const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// Silence on an open connection after which a new one is dialled. Longer than most pauses of a VM (a snapshot
/// takes seconds), shorter than the minute after which an operator is alerted.
const DIAL_AFTER: Duration = Duration::from_secs(30);

/// Age of an unanswered dial at which another one starts: without an open connection, and with a silent one.
const REDIAL_AFTER: Duration = Duration::from_secs(10);
const REDIAL_AFTER_SILENCE: Duration = Duration::from_secs(30);

/// An answered probe.
#[derive(Debug)]
pub(super) struct ProbeAnswer {
    pub(super) health: Box<Health>,
    /// Time of the earliest health check that this answer covers.
    pub(super) asked: SystemTime,
    pub(super) took: Duration,
    /// True if the answer came after the deadline of its probe.
    pub(super) late: bool,
    /// True for the first answer on a connection.
    pub(super) fresh: bool,
}

/// Event on the connection.
#[derive(Debug)]
pub(super) enum ProbeEvent {
    /// The agent answered.
    Answered(ProbeAnswer),
    /// The current probe failed after this time.
    Failed(ProbeError, Duration),
    /// An idle connection broke.
    Broke,
    /// A connection or a dial ended that had been silent for longer than a probe takes.
    SilenceBroke,
}

/// Connection to the agent, and the probe and dial in progress.
#[derive(Debug, Default)]
pub(super) struct ProbeConnection {
    /// The agent's port.
    port: AgentPort,
    held: Option<OpenConnection>,
    dial: Option<PendingDial>,
    attempt: Option<ProbeAttempt>,
    /// True if a health check must be sent next.
    to_ask: bool,
    /// True if a dial must be started next.
    to_dial: bool,
    /// True if only an answer on a new connection counts.
    verify: bool,
    /// Time of the first answer to `CONNECT` that was not taken yet.
    connected: Option<Timestamp>,
}

/// Probe in progress.
#[derive(Debug, Clone, Copy)]
struct ProbeAttempt {
    begun: Instant,
    until: Instant,
}

/// Input on the connection.
enum ProbeInput {
    Reply(Result<Box<Health>, ExchangeError>),
    /// Late reply to a request that followed a probe.
    Late(Result<(), ExchangeError>),
    /// End of an idle connection.
    End,
}

impl ProbeConnection {
    /// Creates a line without a connection, to an agent on this port.
    pub(super) fn to_port(port: AgentPort) -> Self {
        Self { port, ..Self::default() }
    }

    /// Starts a probe, unless one is in progress.
    pub(super) fn probe(&mut self) {
        if self.attempt.is_some() {
            return;
        }
        let begun = Instant::now();
        self.attempt = Some(ProbeAttempt { begun, until: begun + PROBE_DEADLINE });
        let dialled = self.dial.as_ref().map(|dial| dial.started.elapsed());
        match &self.held {
            Some(held) => {
                self.to_ask = held.may_be_asked();
                let silence = held.asked.map_or(Duration::ZERO, |asked| asked.since.elapsed());
                self.to_dial =
                    silence >= DIAL_AFTER && dialled.is_none_or(|age| age >= REDIAL_AFTER_SILENCE);
            }
            None => {
                self.attempt = Some(ProbeAttempt { begun, until: begun + DIAL_DEADLINE });
                self.to_dial = dialled.is_none_or(|age| age >= REDIAL_AFTER);
            }
        }
    }

    /// Reports whether a probe is in progress.
    pub(super) fn is_busy(&self) -> bool {
        self.attempt.is_some()
    }

    /// Reports whether a connection is open, silent or not.
    pub(super) fn is_connected(&self) -> bool {
        self.held.is_some()
    }

    /// Returns the permission for calls that follows from the state of this connection.
    pub(super) fn permission(&self) -> Permission {
        match &self.held {
            None => Permission::Open,
            Some(held) if self.to_ask || held.is_asked() => Permission::Asked,
            Some(held) => held.answered.map_or(Permission::Open, Permission::Answered),
        }
    }

    /// Starts a probe that only an answer on a new connection satisfies. An open connection is probed first: if it
    /// is silent, the VM may be paused, and is not dialled.
    pub(super) fn verify(&mut self) {
        self.verify = true;
        self.probe();
    }

    /// Starts a probe of an agent that has announced itself. A dial in progress may have begun before the agent listened,
    /// and may be answered late or never, so another one starts. The same holds for a silent connection: a guest that
    /// announces is not paused.
    pub(super) fn announced(&mut self) {
        let asked = self.held.as_ref().map(|held| held.asked.map(|asked| asked.since.elapsed()));
        match asked {
            // An idle connection, or one whose answer may still come in time.
            Some(None) => self.probe(),
            Some(Some(silence)) if silence < PROBE_DEADLINE => {}
            Some(Some(_)) | None => {
                let begun = self.attempt.map_or_else(Instant::now, |attempt| attempt.begun);
                let until = Instant::now() + DIAL_DEADLINE;
                self.attempt = Some(ProbeAttempt { begun, until });
                self.to_dial = true;
            }
        }
    }

    /// Takes the time of the first answer to `CONNECT` since the last call.
    pub(super) fn take_connected(&mut self) -> Option<Timestamp> {
        self.connected.take()
    }

    /// Closes the connection and forgets the dial.
    pub(super) fn hang_up(&mut self) {
        *self = Self { verify: self.verify, ..Self::to_port(self.port) };
    }

    /// Returns the connection if it is open and no reply is outstanding on it.
    pub(super) fn connection(&mut self) -> Option<&mut AgentConnection> {
        self.held.as_mut().filter(|held| !held.is_asked()).map(|held| &mut held.connection)
    }

    /// Asks the agent for a look for drift. Returns `None` if it fails or is not answered in time; a late reply is ignored.
    ///
    /// Not cancel safe: the connection is then useless.
    pub(super) async fn look(&mut self, request: &LookRequest) -> Option<NetworkChanged> {
        let held = self.held.as_mut().filter(|held| !held.is_asked())?;
        let reply = held.look(request).await;
        if held.is_broken() {
            self.held = None;
        }
        reply
    }

    /// Asks the agent for a sample of the guest's figures. Returns `None` if it fails or is not answered in time; a late reply
    /// is ignored.
    ///
    /// Not cancel safe: the connection is then useless.
    pub(super) async fn sample(&mut self) -> Option<GuestSample> {
        let held = self.held.as_mut().filter(|held| !held.is_asked())?;
        let sample = held.sample().await;
        if held.is_broken() {
            self.held = None;
        }
        sample
    }

    /// Waits for the next event: the outcome of the current probe, a late answer, or the end of the connection.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self, connector: &Connector) -> ProbeEvent {
        loop {
            if let Some(heard) = self.step(connector).await {
                return heard;
            }
        }
    }

    async fn step(&mut self, connector: &Connector) -> Option<ProbeEvent> {
        if self.to_ask {
            return self.ask().await;
        }
        if self.to_dial
            && let Some(dial) = &mut self.dial
        {
            // The next dial waits for a turn: a line that holds one meanwhile, and others that do the same, would keep all
            // turns for good.
            dial.yield_turn();
        }
        let until = self.attempt.filter(|_| !self.to_dial).map(|attempt| attempt.until);
        tokio::select! {
            // An answer that has already arrived counts, even if the deadline has passed meanwhile.
            biased;
            received = received(&mut self.held) => self.received(received, connector),
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

    /// Sends a health check. Not cancelled in practice, because a socket accepts 27 bytes at once. A cancelled call
    /// leaves a broken connection, which the next use detects.
    async fn ask(&mut self) -> Option<ProbeEvent> {
        self.to_ask = false;
        let held = self.held.as_mut()?;
        let until = Instant::now() + PROBE_DEADLINE;
        let asked = PendingCheck { since: Instant::now(), wall: SystemTime::now() };
        let sent = match &held.token {
            Some(token) => {
                let probe = TokenCheck { vmm_token: token.clone() };
                held.connection.ask(&probe, until).await
            }
            None => held.connection.ask(&HealthCheck {}, until).await,
        };
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
            // The dial waited for its turn; its deadline starts now.
            attempt.until = Instant::now() + DIAL_DEADLINE;
        }
    }

    fn dialled(
        &mut self,
        dialled: Result<AgentConnection, ConnectError>,
        connector: &Connector,
    ) -> Option<ProbeEvent> {
        match dialled {
            Ok(connection) => {
                self.connected.get_or_insert_with(Timestamp::now);
                self.held = Some(OpenConnection::new(connection));
                self.to_ask = true;
                let now = Instant::now();
                let begun = self.attempt.map_or(now, |attempt| attempt.begun);
                self.attempt = Some(ProbeAttempt { begun, until: now + PROBE_DEADLINE });
                None
            }
            Err(error) => {
                connector.failed(&error);
                Some(self.failed(ProbeError::of_dial(&error, connector)))
            }
        }
    }

    fn received(&mut self, received: ProbeInput, connector: &Connector) -> Option<ProbeEvent> {
        match received {
            ProbeInput::Late(reply) => self.late(reply),
            ProbeInput::End => {
                self.held = None;
                Some(ProbeEvent::Broke)
            }
            ProbeInput::Reply(Ok(health)) => {
                let held = self.held.as_mut()?;
                held.reply = Some(health);
                if held.connection.outstanding() > 0 {
                    // More replies are on their way: no other request may be sent before they arrive.
                    let begun = self.attempt.map_or_else(Instant::now, |attempt| attempt.begun);
                    let until = Instant::now() + PROBE_DEADLINE;
                    self.attempt.get_or_insert(ProbeAttempt { begun, until });
                    return None;
                }
                self.answered(connector)
            }
            ProbeInput::Reply(Err(_))
                if self.held.as_ref().is_some_and(|held| held.reply.is_some()) =>
            {
                self.answered(connector)
            }
            ProbeInput::Reply(Err(error)) => self.lost(error),
        }
    }

    /// Ignores the late reply to a request that followed a probe.
    fn late(&mut self, reply: Result<(), ExchangeError>) -> Option<ProbeEvent> {
        match reply {
            Ok(()) | Err(ExchangeError::Agent(_)) => {
                self.held.as_mut()?.owes = None;
                None
            }
            Err(error) => self.lost(error),
        }
    }

    /// Completes the probe with the latest reply, or asks again with the token of the VMM: only an agent that has
    /// announced on this connection that it knows tokens gets one.
    fn answered(&mut self, connector: &Connector) -> Option<ProbeEvent> {
        let held = self.held.as_mut()?;
        if held.token.is_none() && held.connection.is_reusable() && held.knows_tokens() {
            held.token = Some(vmm_token::of(&connector.socket_id()));
            (held.reply, held.asked) = (None, None);
            self.to_ask = true;
            let now = Instant::now();
            let begun = self.attempt.map_or(now, |attempt| attempt.begun);
            self.attempt = Some(ProbeAttempt { begun, until: now + PROBE_DEADLINE });
            return None;
        }
        let (health, asked) = (held.reply.take()?, held.asked.take()?);
        let took = asked.since.elapsed();
        let fresh = held.answered.replace(Instant::now()).is_none();
        held.connection.get_mut().rest();
        if !held.connection.is_reusable() {
            self.held = None;
        }
        if self.verify && !fresh {
            // The VM is not paused, so it is safe to dial.
            self.held = None;
            self.to_dial = true;
            let begun = Instant::now();
            self.attempt = Some(ProbeAttempt { begun, until: begun + DIAL_DEADLINE });
            return None;
        }
        self.verify = false;
        self.attempt = None;
        self.dial = None;
        let late = took > PROBE_DEADLINE;
        Some(ProbeEvent::Answered(ProbeAnswer { health, asked: asked.wall, took, late, fresh }))
    }

    /// Handles a connection that broke or received an invalid answer.
    fn lost(&mut self, error: ExchangeError) -> Option<ProbeEvent> {
        let held = self.held.take();
        if let Some(service) = held.as_ref().and_then(OpenConnection::foreign_service) {
            return Some(self.failed(ProbeError::of_foreign_service(self.port, &service)));
        }
        let asked = held.and_then(|held| held.asked);
        let silent = asked.is_some_and(|asked| asked.since.elapsed() >= PROBE_DEADLINE);
        if silent && matches!(error, ExchangeError::Lost { .. }) {
            self.attempt = None;
            return Some(ProbeEvent::SilenceBroke);
        }
        Some(self.failed(ProbeError::of_exchange(self.port, error)))
    }

    /// Ends the current probe with a failure.
    fn failed(&mut self, error: ProbeError) -> ProbeEvent {
        match self.attempt.take() {
            Some(attempt) => ProbeEvent::Failed(error, attempt.begun.elapsed()),
            None => ProbeEvent::SilenceBroke,
        }
    }

    /// Handles the end of the probe's deadline.
    fn unanswered(&mut self, connector: &Connector) -> Option<ProbeEvent> {
        if let Some(dial) = &mut self.dial {
            dial.yield_turn();
        }
        match &self.held {
            Some(held) if held.reply.is_some() => self.answered(connector),
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

/// Waits for a reply or for the end of an idle connection; forever without a connection.
///
/// Cancel safe.
async fn received(held: &mut Option<OpenConnection>) -> ProbeInput {
    match held {
        Some(OpenConnection { owes: Some(OwedReply::Look), connection, .. }) => {
            ProbeInput::Late(connection.answer::<ChangeNetwork>().await.map(drop))
        }
        Some(OpenConnection { owes: Some(OwedReply::Sample), connection, .. }) => {
            ProbeInput::Late(connection.answer::<ReportSample>().await.map(drop))
        }
        Some(held) if held.asked.is_some() => {
            ProbeInput::Reply(held.connection.answer::<HealthCheck>().await.map(Box::new))
        }
        Some(held) => {
            held.connection.dead().await;
            ProbeInput::End
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
