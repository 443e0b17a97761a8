//! One call to one agent.

use super::checkout::{Checkout, CheckoutError};
use super::gate::Barred;
use super::socket::is_no_room;
use super::{AgentRefusal, CallError, Calls, Lane, Pool, TransportError};
use crate::vm::status::{Unready, VmStatus};
use minions_api::vm::{Failure, VmState};
use minions_proto::connection::ExchangeError;
use minions_proto::message::{AgentInfo, Feature};
use minions_proto::{AgentError, Call};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// An agent that answers by itself takes a millisecond; a caller that gave it less than this has not
/// learned anything about it.
const FAIR: Duration = Duration::from_millis(100);

/// How long a caller that is turned away should wait.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Calls one VM's agent.
#[derive(Debug)]
pub(crate) struct AgentClient {
    pool: Pool,
    status: watch::Receiver<VmStatus>,
    /// Asks the supervisor to look now rather than at its next turn.
    nudge: Arc<Notify>,
    /// Tells it how calls fare.
    calls: Arc<Calls>,
}

impl AgentClient {
    pub(crate) fn new(
        pool: Pool,
        status: watch::Receiver<VmStatus>,
        nudge: Arc<Notify>,
        calls: Arc<Calls>,
    ) -> Self {
        Self { pool, status, nudge, calls }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Calls `read` with the agent's last description of itself; `None` for a base agent.
    pub(super) fn with_agent<T>(&self, read: impl FnOnce(Option<&AgentInfo>) -> T) -> T {
        read(self.status.borrow().agent.as_ref())
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
    /// The answer that the agent would give.
    pub(crate) fn allows(&self, operation: &str) -> Result<(), AgentRefusal> {
        if self.with_agent(|agent| agent.is_none_or(|agent| agent.allows(operation))) {
            return Ok(());
        }
        Err(AgentRefusal::Answer(AgentError::not_allowed(operation)))
    }

    /// Reports whether the agent announces the operations that it serves. Such an agent knows all requests of protocol
    /// 2 that need none of the missing operations.
    pub(crate) fn is_restricted(&self) -> bool {
        self.with_agent(|agent| agent.is_some_and(|agent| agent.allowed.is_some()))
    }

    /// Whether the VM itself is gone, or another one has its name. It doesn't come back.
    pub(crate) fn is_gone(&self) -> bool {
        // Its supervisor has ended.
        self.status.has_changed().is_err()
    }

    /// Sends `call` and waits for its reply until `deadline`.
    ///
    /// It is lost when the agent turns out to be another one than it was sent to: after a guest's
    /// reset its connections may stay silent for ever.
    ///
    /// Sends it a second time only if the first attempt used a connection that had idled, and
    /// either nothing of the request had left, or doing it twice is doing it once.
    ///
    /// Safe to cancel: the connection is then closed, not reused.
    pub(crate) async fn call<C: Call>(
        &self,
        call: &C,
        lane: Lane,
        deadline: Instant,
    ) -> Result<C::Reply, CallError> {
        self.reachable(deadline).await?;
        let mut checkout = self.checkout(lane, C::IDEMPOTENT, deadline).await?;
        let begun = Instant::now();
        // What runs a program takes as long as the program does.
        let asked = (lane == Lane::Quick).then(Instant::now);
        loop {
            let epoch = checkout.epoch().clone();
            let connection = checkout.connection().ok_or(TransportError::Lost { sent: false })?;
            let replaced = epoch.cancelled();
            let error = tokio::select! {
                answered = connection.call(call, deadline) => match answered {
                    Ok(reply) => {
                        self.calls.succeeded();
                        return Ok(reply);
                    }
                    Err(error) => error,
                },
                // Whom it was sent to is gone, and an answer may never come.
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

    /// A connection for a call.
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
        if matches!(error, CheckoutError::Barred(Barred::Unanswered)) && begun.elapsed() >= FAIR {
            self.calls.failed(Failure::AgentSilent);
        }
        error.into()
    }

    /// A call was answered.
    pub(super) fn succeeded(&self) {
        self.calls.succeeded();
    }

    /// What is to be told of a failed exchange. The supervisor is told too, and whether it is the
    /// agent's fault; `asked` is since when an agent that answers by itself had time to.
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
        // One that is gone has no future to be judged for.
        if fair && !epoch.is_cancelled() {
            self.calls.failed(failure);
        }
        // Whatever else it is, the supervisor wants to know before its next turn.
        self.nudge.notify_one();
        error.into()
    }

    /// Waits for the first probe of a VM that was only just found; turns callers away from one that
    /// is known not to answer, after asking its supervisor to look again.
    pub(super) async fn reachable(&self, deadline: Instant) -> Result<(), TransportError> {
        if self.status.has_changed().is_ok() && self.status.borrow().state == VmState::Ready {
            return Ok(());
        }
        let mut status = self.status.clone();
        let settled = timeout_at(deadline, status.wait_for(|status| !status.is_unsettled())).await;
        let unready = match settled {
            Ok(Ok(status)) => status.unready(),
            // Its supervisor ended: the VM is gone.
            Ok(Err(_)) => Some(Unready {
                failure: Failure::NoSocket,
                message: "the socket file vanished".into(),
            }),
            Err(_) => return Err(TransportError::TimedOut { sent: false }),
        };
        match unready {
            None => Ok(()),
            Some(Unready { failure, message }) => {
                self.nudge.notify_one();
                Err(TransportError::Unreachable { failure, message })
            }
        }
    }
}
