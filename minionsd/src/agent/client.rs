//! Calls to the agent of one VM.

use super::calls::CallOutcomes;
use super::checkout::Checkout;
use super::checkout_error::CheckoutError;
use super::connector::AgentConnection;
use super::error::{AgentRefusal, CallError, TransportError};
use super::gate::DialRefusal;
use super::pool::{Lane, Pool};
use super::precondition::{IncarnationId, PreconditionError, check_incarnation};
use super::socket::is_no_room;
use super::status::{AgentStatus, CallAccess, RefusalReason};
use minions_api::vm::Failure;
use minions_proto::connection::ExchangeError;
use minions_proto::message::{AgentInfo, Feature};
use minions_proto::{AgentError, Call};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Shortest wait after which a missing answer counts as the agent's failure. A request that runs no program is
/// answered within a millisecond; a caller with a shorter deadline than this learns nothing about the agent.
const FAIR: Duration = Duration::from_millis(100);

/// Time that a rejected caller should wait before it retries.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Client of one VM's agent.
///
/// Cheap to clone: the clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct AgentClient {
    pool: Pool,
    status: watch::Receiver<AgentStatus>,
    /// Makes the supervisor probe now instead of at the next interval.
    nudge: Arc<Notify>,
    /// Outcomes of the calls, for the supervisor.
    calls: Arc<CallOutcomes>,
    /// Incarnation that calls must reach; `None`: any.
    only: Option<IncarnationId>,
}

impl AgentClient {
    pub(crate) fn new(
        pool: Pool,
        status: watch::Receiver<AgentStatus>,
        nudge: Arc<Notify>,
        calls: Arc<CallOutcomes>,
    ) -> Self {
        Self { pool, status, nudge, calls, only: None }
    }

    /// Returns a client whose calls reach this incarnation of the guest, or fail.
    pub(crate) fn with_precondition(&self, only: IncarnationId) -> Self {
        Self { only: Some(only), ..self.clone() }
    }

    /// Reports whether calls are limited to one incarnation.
    pub(super) fn has_precondition(&self) -> bool {
        self.only.is_some()
    }

    /// Checks that `connection` leads to the incarnation that calls must reach.
    pub(super) async fn check_incarnation(
        &self,
        connection: &mut AgentConnection,
        deadline: Instant,
    ) -> Result<(), PreconditionError> {
        match &self.only {
            Some(only) => check_incarnation(connection, only, deadline).await,
            None => Ok(()),
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Calls `read` with the agent's last description of itself; `None` for a base agent.
    pub(super) fn with_agent<T>(&self, read: impl FnOnce(Option<&AgentInfo>) -> T) -> T {
        read(self.status.borrow().info.as_deref())
    }

    /// Checks that the agent announces `feature`, which `fields` of the request need; or, without fields, the request
    /// as a whole. Waits before `deadline` for the first probe to be answered.
    ///
    /// # Errors
    ///
    /// [`AgentRefusal::Answer`] if the agent was started without the operation; otherwise [`AgentRefusal::TooOld`].
    pub(crate) async fn require(
        &self,
        feature: Feature,
        fields: &[&str],
        deadline: Instant,
    ) -> Result<(), CallError> {
        if self.has_feature(feature, deadline).await? {
            return Ok(());
        }
        self.allows(feature.operation())?;
        Err(AgentRefusal::too_old(feature, fields).into())
    }

    /// Reports whether the agent announces `feature`. Waits before `deadline` for the first probe to be answered.
    pub(crate) async fn has_feature(
        &self,
        feature: Feature,
        deadline: Instant,
    ) -> Result<bool, TransportError> {
        self.reachable(deadline).await?;
        Ok(self.with_agent(|agent| agent.is_some_and(|agent| agent.supports(feature))))
    }

    /// Checks that the agent has not announced that it was started without `operation`.
    ///
    /// # Errors
    ///
    /// Returns the error that the agent would answer with.
    pub(crate) fn allows(&self, operation: &str) -> Result<(), AgentRefusal> {
        if self.with_agent(|agent| agent.is_none_or(|agent| agent.allows(operation))) {
            return Ok(());
        }
        Err(AgentRefusal::Answer(AgentError::not_allowed(operation)))
    }

    /// Reports whether the agent announces the operations that it serves. Such an agent implements the features up to
    /// `forward`, without those of missing operations; for a newer feature, use [`require`](Self::require).
    pub(crate) fn is_restricted(&self) -> bool {
        self.with_agent(|agent| agent.is_some_and(|agent| agent.allowed.is_some()))
    }

    /// Reports whether the VM itself is gone, or another VM has its name. This is final.
    pub(crate) fn is_gone(&self) -> bool {
        // The channel closes when the VM's supervisor ends.
        self.status.has_changed().is_err()
    }

    /// Sends `call` and waits for its reply until `deadline`.
    ///
    /// The call fails as lost when the agent that it was sent to is replaced by another one: after a reset of the
    /// guest, the old connections may stay silent forever.
    ///
    /// The call is sent a second time only if the first attempt used an idle connection of the pool, and either
    /// nothing of the request had been sent, or the call is idempotent.
    ///
    /// Safe to cancel: the connection is then not reused.
    pub(crate) async fn call<C: Call>(
        &self,
        call: &C,
        lane: Lane,
        deadline: Instant,
    ) -> Result<C::Reply, CallError> {
        self.reachable(deadline).await?;
        let mut checkout = self.checkout(lane, C::IDEMPOTENT, deadline).await?;
        let begun = Instant::now();
        // A call that runs a program takes as long as the program does, so its time says nothing about the agent.
        let asked = (lane == Lane::Quick).then(Instant::now);
        loop {
            let epoch = checkout.epoch().clone();
            let connection = checkout.connection().ok_or(TransportError::Lost { sent: false })?;
            let replaced = epoch.cancelled();
            let answered = async {
                self.check_incarnation(connection, deadline).await?;
                connection.call(call, deadline).await.map_err(PreconditionError::Exchange)
            };
            let error = tokio::select! {
                answered = answered => match answered {
                    Ok(reply) => {
                        self.calls.succeeded();
                        if lane == Lane::Background && !checkout.is_reused() {
                            checkout.close();
                        }
                        return Ok(reply);
                    }
                    Err(PreconditionError::Other(answered)) => {
                        self.calls.succeeded();
                        return Err(AgentRefusal::OtherIncarnation(answered).into());
                    }
                    Err(PreconditionError::Exchange(error)) => error,
                },
                // The agent that it was sent to is gone, and an answer may never come.
                () = replaced => {
                    let source = io::ErrorKind::ConnectionAborted.into();
                    ExchangeError::Lost { sent: true, source }
                }
            };
            let lost_before = |sent: bool| !sent || C::IDEMPOTENT;
            match error {
                ExchangeError::Lost { sent, .. } if checkout.is_reused() && lost_before(sent) => {
                    let renewed = self.pool.renew(checkout, deadline).await;
                    checkout = renewed.map_err(|error| self.no_connection(error, begun))?;
                }
                error => return Err(self.failed(error, asked, &epoch)),
            }
        }
    }

    /// Checks out a connection for a call.
    ///
    /// Cancel safe.
    pub(super) async fn checkout(
        &self,
        lane: Lane,
        idempotent: bool,
        deadline: Instant,
    ) -> Result<Checkout, TransportError> {
        let begun = Instant::now();
        let checkout = self.pool.checkout(lane, idempotent, deadline).await;
        checkout.map_err(|error| self.no_connection(error, begun))
    }

    /// Converts the error of a checkout that began at `begun`. A wait for an agent that did not answer counts
    /// as a failed call.
    fn no_connection(&self, error: CheckoutError, begun: Instant) -> TransportError {
        if matches!(error, CheckoutError::Barred(DialRefusal::Unanswered))
            && begun.elapsed() >= FAIR
        {
            self.calls.failed(Failure::AgentSilent);
        }
        error.into()
    }

    /// Records that a call was answered.
    pub(super) fn succeeded(&self) {
        self.calls.succeeded();
    }

    /// Converts the error of a failed exchange. Makes the supervisor probe, and counts a failed call if the agent is
    /// responsible. `asked` is the time of a request that needs no program to end; without it, a timeout is not
    /// counted.
    pub(super) fn failed(
        &self,
        error: ExchangeError,
        asked: Option<Instant>,
        epoch: &CancellationToken,
    ) -> CallError {
        let (failure, error) = match error {
            ExchangeError::Agent(error) => {
                self.calls.succeeded();
                return AgentRefusal::Answer(error).into();
            }
            ExchangeError::Encode(error) => return TransportError::Encode(error).into(),
            ExchangeError::Lost { source, .. } if is_no_room(&source) => {
                return TransportError::NoRoom.into();
            }
            ExchangeError::Lost { sent, .. } => {
                (Failure::AgentClosed, TransportError::Lost { sent })
            }
            ExchangeError::Protocol(error) => {
                (Failure::ProtocolError, TransportError::Protocol(error))
            }
            ExchangeError::TimedOut => {
                (Failure::AgentSilent, TransportError::TimedOut { sent: true })
            }
        };
        let fair = match &error {
            TransportError::TimedOut { .. } => asked.is_some_and(|asked| asked.elapsed() >= FAIR),
            _ => true,
        };
        // The failures of an agent that is gone say nothing about its successor.
        if fair && !epoch.is_cancelled() {
            self.calls.failed(failure);
        }
        // In any case the supervisor should probe before the next interval.
        self.nudge.notify_one();
        error.into()
    }

    /// Waits for the result of the first probe if the VM was only just found. Fails if the VM is known not to
    /// answer, and makes its supervisor probe again.
    pub(super) async fn reachable(&self, deadline: Instant) -> Result<(), TransportError> {
        let is_allowed = matches!(self.status.borrow().access, CallAccess::Allowed);
        if is_allowed && !self.is_gone() {
            return Ok(());
        }
        let mut status = self.status.clone();
        let is_decided = |status: &AgentStatus| !matches!(status.access, CallAccess::Undecided);
        let decided = timeout_at(deadline, status.wait_for(is_decided)).await;
        let access = match decided {
            Ok(Ok(status)) => status.access.clone(),
            // The supervisor has ended: the VM is gone.
            Ok(Err(_)) => CallAccess::Refused(RefusalReason::vanished()),
            Err(_) => return Err(TransportError::TimedOut { sent: false }),
        };
        match access {
            CallAccess::Undecided | CallAccess::Allowed => Ok(()),
            CallAccess::Refused(RefusalReason { failure, message }) => {
                self.nudge.notify_one();
                Err(TransportError::Unreachable { failure, message })
            }
        }
    }
}

#[cfg(test)]
mod tests;
