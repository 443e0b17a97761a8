//! Connection of a supervisor to its agent, and the replies that are outstanding on it.

use super::super::look_slot::LookRequest;
use crate::agent::AgentConnection;
use minions_proto::Call;
use minions_proto::foreign_service::ForeignService;
use minions_proto::message::{
    ChangeNetwork, Feature, GuestSample, Health, NetworkChanged, ReportSample, VmmToken,
};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout_at};

/// Deadline for the answer to a request that follows a probe. Probes wait meanwhile.
const EXTRA_DEADLINE: Duration = Duration::from_secs(1);

/// Limit of unanswered health checks on one connection: enough for one per second until the first dial. A request
/// has 27 bytes.
const MAX_OUTSTANDING: usize = 32;

#[derive(Debug)]
pub(super) struct OpenConnection {
    pub(super) connection: AgentConnection,
    /// Token of the VMM, once the agent on this connection has announced that it knows tokens.
    pub(super) token: Option<VmmToken>,
    /// Earliest health check without a reply.
    pub(super) asked: Option<PendingCheck>,
    /// Latest reply, while more replies are outstanding.
    pub(super) reply: Option<Box<Health>>,
    pub(super) answered: Option<Instant>,
    /// Outstanding reply to a request that followed a probe. It comes before those to later health checks.
    pub(super) owes: Option<OwedReply>,
}

/// Reply to a request that followed a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwedReply {
    /// Reply to a look for drift.
    Look,
    /// Sample of the guest's figures.
    Sample,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PendingCheck {
    pub(super) since: Instant,
    pub(super) wall: SystemTime,
}

impl OpenConnection {
    /// Takes over a new connection.
    pub(super) fn new(connection: AgentConnection) -> Self {
        Self { connection, token: None, asked: None, reply: None, answered: None, owes: None }
    }

    /// Asks for a look for drift. Returns `None` if it fails or is not answered in time.
    ///
    /// Not cancel safe: the connection is then useless.
    pub(super) async fn look(&mut self, request: &LookRequest) -> Option<NetworkChanged> {
        let until = Instant::now() + EXTRA_DEADLINE;
        self.connection.ask_encoded(request.frame(), until).await.ok()?;
        self.owed::<ChangeNetwork>(OwedReply::Look, until).await
    }

    /// Asks for a sample of the guest's figures. Returns `None` if it fails or is not answered in time.
    ///
    /// Not cancel safe: the connection is then useless.
    pub(super) async fn sample(&mut self) -> Option<GuestSample> {
        let until = Instant::now() + EXTRA_DEADLINE;
        self.connection.ask(&ReportSample {}, until).await.ok()?;
        self.owed::<ReportSample>(OwedReply::Sample, until).await
    }

    async fn owed<C: Call>(&mut self, owed: OwedReply, until: Instant) -> Option<C::Reply> {
        self.owes = Some(owed);
        let reply = timeout_at(until, self.connection.answer::<C>()).await.ok()?;
        self.owes = None;
        self.connection.get_mut().rest();
        reply.ok()
    }

    /// Reports whether the connection is useless after an exchange.
    pub(super) fn is_broken(&self) -> bool {
        self.owes.is_none() && !self.connection.is_reusable()
    }

    /// Reports whether a reply is outstanding.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some() || self.owes.is_some()
    }

    /// Reports whether the latest reply announces that the agent knows tokens.
    pub(super) fn knows_tokens(&self) -> bool {
        let agent = self.reply.as_ref().and_then(|health| health.agent.as_ref());
        agent.is_some_and(|agent| agent.supports(Feature::Generations))
    }

    /// Returns the service on the agent's port if it is not an agent.
    pub(super) fn foreign_service(&self) -> Option<ForeignService> {
        self.connection.foreign_service().filter(|_| self.answered.is_none())
    }

    /// Reports whether another health check may be sent: not while a reply is partly received, and at most
    /// [`MAX_OUTSTANDING`].
    pub(super) fn may_be_asked(&self) -> bool {
        let outstanding = self.connection.outstanding();
        outstanding == 0 || (outstanding < MAX_OUTSTANDING && !self.connection.has_partial_reply())
    }
}
