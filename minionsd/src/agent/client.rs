//! One call to one agent.

use super::checkout::{Checkout, CheckoutError};
use super::gate::Barred;
use super::socket::is_no_room;
use super::{Calls, Lane, Pool};
use crate::vm::status::{Unready, VmStatus};
use minions_api::vm::{Failure, VmState};
use minions_proto::connection::{ExchangeError, ProtocolError};
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::exec_client::StreamError;
use minions_proto::frame::EncodeError;
use minions_proto::message::AgentInfo;
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

/// Why a call has no answer. What it means for the guest is part of the meaning: see
/// [`may_have_executed`](Self::may_have_executed).
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no way to the agent.
    #[error("agent can't be reached: {message}")]
    Unreachable {
        /// The layer that failed.
        failure: Failure,
        /// The same for people.
        message: String,
    },
    /// All of this VM's connections are in use.
    #[error("all connections to this VM are in use")]
    Overloaded,
    /// The daemon has no descriptor to reach the VM with.
    #[error("no descriptor left")]
    Exhausted,
    /// The deadline passed.
    #[error("no answer in time")]
    TimedOut {
        /// Whether the request may have reached the agent by then.
        sent: bool,
    },
    /// The connection broke.
    #[error("connection lost")]
    Lost {
        /// Whether the request may have reached the agent by then.
        sent: bool,
    },
    /// What came back isn't the protocol.
    #[error("agent broke the protocol")]
    Protocol(#[source] ProtocolError),
    /// The agent said no.
    #[error("agent refused")]
    Agent(#[source] AgentError),
    /// The agent's version can't do this.
    #[error("agent lacks {needs}")]
    TooOld {
        /// What is missing, in words.
        needs: String,
        /// The first field of the request that asks for it.
        field: Option<String>,
    },
    /// A program ran, and nobody knows how it ended.
    #[error("lost: {reason}")]
    ExecLost {
        /// Why not.
        reason: String,
    },
    /// What the agent says on a stream contradicts what it has said, or isn't channel mode.
    #[error("agent broke the stream")]
    Stream(#[source] StreamError),
    /// There is no room for more of the program's output.
    #[error("no memory for the program's output")]
    NoRoom,
    /// The request doesn't fit a frame.
    #[error("request can't be encoded")]
    Encode(#[source] EncodeError),
}

impl CallError {
    /// Whether the guest may have done what was asked.
    pub(crate) fn may_have_executed(&self) -> bool {
        match self {
            Self::TimedOut { sent } | Self::Lost { sent } => *sent,
            Self::Protocol(_) | Self::ExecLost { .. } | Self::Stream(_) | Self::NoRoom => true,
            // Only an agent that rolled everything back says so.
            Self::Agent(error) if error.restored == Some(true) => false,
            Self::Agent(error) => refused_after_doing(error.code),
            Self::Unreachable { .. }
            | Self::Overloaded
            | Self::Exhausted
            | Self::TooOld { .. }
            | Self::Encode(_) => false,
        }
    }
}

/// Whether an agent that says no may have done a part of it. A base agent doesn't tell.
fn refused_after_doing(code: Option<AgentCode>) -> bool {
    match code {
        Some(
            AgentCode::BadRequest
            | AgentCode::Unsupported
            | AgentCode::InvalidArgument
            | AgentCode::Forbidden
            | AgentCode::FrameTooLarge
            | AgentCode::CommandNotFound
            | AgentCode::CommandNotExecutable
            | AgentCode::UserNotFound
            | AgentCode::CwdNotFound
            | AgentCode::ArgumentListTooLong
            | AgentCode::ExecGone
            | AgentCode::ExecConflict
            | AgentCode::ExecEnded
            | AgentCode::ExecFailed
            | AgentCode::NetworkPending
            | AgentCode::NetworkChangeGone
            | AgentCode::Busy,
        ) => false,
        Some(
            AgentCode::NetworkFailed
            | AgentCode::IoFailed
            | AgentCode::ClockFailed
            | AgentCode::TakenOver
            | AgentCode::ExecNotEnded
            | AgentCode::Internal
            | AgentCode::Other,
        )
        | None => true,
    }
}

impl From<CheckoutError> for CallError {
    fn from(error: CheckoutError) -> Self {
        match error {
            CheckoutError::Exhausted => Self::Overloaded,
            CheckoutError::TimedOut | CheckoutError::Barred(Barred::Unanswered) => {
                Self::TimedOut { sent: false }
            }
            CheckoutError::Barred(Barred::Refused(Unready { failure, message })) => {
                Self::Unreachable { failure, message }
            }
            CheckoutError::Connect { failure: Failure::DaemonExhausted, .. } => Self::Exhausted,
            CheckoutError::Connect { failure, message } => Self::Unreachable { failure, message },
        }
    }
}

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

    /// What the agent said of itself last, if it speaks more than the base protocol.
    pub(super) fn agent(&self) -> Option<AgentInfo> {
        self.status.borrow().agent.clone()
    }

    /// Makes sure that the agent serves `operation`, whose `feature` it announces: known once it has answered a
    /// probe, which is waited for before `deadline`.
    ///
    /// # Errors
    ///
    /// [`CallError::TooOld`] with what it `lacks`: the way to …; [`CallError::Agent`] if it was started without the
    /// operation.
    pub(crate) async fn require(
        &self,
        (operation, feature): (&str, &str),
        lacks: &str,
        deadline: Instant,
    ) -> Result<(), CallError> {
        if self.has_feature(feature, deadline).await? {
            return Ok(());
        }
        self.allows(operation)?;
        Err(CallError::TooOld { needs: lacks.to_owned(), field: None })
    }

    /// Whether the agent knows something by this name: known once it has answered a probe, which is waited
    /// for before `deadline`.
    pub(crate) async fn has_feature(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<bool, CallError> {
        self.reachable(deadline).await?;
        let agent = self.agent();
        Ok(agent.is_some_and(|agent| agent.supports(name)))
    }

    /// Makes sure that the agent has not said that it was started without `operation`.
    ///
    /// # Errors
    ///
    /// The answer that the agent would give.
    pub(crate) fn allows(&self, operation: &str) -> Result<(), CallError> {
        match self.agent() {
            Some(agent) if !agent.allows(operation) => {
                Err(CallError::Agent(AgentError::not_allowed(operation)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the agent says which operations it serves. Every such agent knows all requests of protocol 2 that
    /// need none of the missing ones.
    pub(crate) fn is_restricted(&self) -> bool {
        self.agent().is_some_and(|agent| agent.allowed.is_some())
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
            let connection = checkout.connection().ok_or(CallError::Lost { sent: false })?;
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
    ) -> Result<Checkout, CallError> {
        let begun = Instant::now();
        let checkout = self.pool.checkout(lane, idempotent, deadline).await;
        checkout.map_err(|error| self.no_connection(error, begun))
    }

    /// Converts the error of a checkout that began at `begun`. A wait for an agent that did not answer counts
    /// as a failed call.
    fn no_connection(&self, error: CheckoutError, begun: Instant) -> CallError {
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
                return CallError::Agent(error);
            }
            ExchangeError::Encode(error) => return CallError::Encode(error),
            ExchangeError::Lost { source, .. } if is_no_room(&source) => return CallError::NoRoom,
            ExchangeError::Lost { sent, .. } => (Failure::AgentClosed, CallError::Lost { sent }),
            ExchangeError::Protocol(error) => (Failure::ProtocolError, CallError::Protocol(error)),
            ExchangeError::TimedOut => (Failure::AgentSilent, CallError::TimedOut { sent: true }),
        };
        let fair = match &error {
            CallError::TimedOut { .. } => asked.is_some_and(|asked| asked.elapsed() >= FAIR),
            _ => true,
        };
        // One that is gone has no future to be judged for.
        if fair && !epoch.is_cancelled() {
            self.calls.failed(failure);
        }
        // Whatever else it is, the supervisor wants to know before its next turn.
        self.nudge.notify_one();
        error
    }

    /// Waits for the first probe of a VM that was only just found; turns callers away from one that
    /// is known not to answer, after asking its supervisor to look again.
    pub(super) async fn reachable(&self, deadline: Instant) -> Result<(), CallError> {
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
            Err(_) => return Err(CallError::TimedOut { sent: false }),
        };
        match unready {
            None => Ok(()),
            Some(Unready { failure, message }) => {
                self.nudge.notify_one();
                Err(CallError::Unreachable { failure, message })
            }
        }
    }
}
