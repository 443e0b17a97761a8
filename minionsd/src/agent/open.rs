//! Opening of streams, optionally only to a given instance of the agent.
//!
//! A program must not run twice because its request was sent again. So a caller that repeats a request makes sure
//! that it reaches the same instance of the agent, because only that instance knows which ids it has seen. A
//! connection leads to the same instance for its whole life, so a health check on it identifies the instance that
//! will answer the next request.

use super::client::AgentClient;
use super::error::{AgentRefusal, CallError, TransportError};
use super::pool::Lane;
use super::precondition::{AgentInstance, InstanceMatch, PreconditionError, check_instance};
use super::stream::AgentStream;
use minions_proto::Call;
use minions_proto::connection::ExchangeError;
use minions_proto::message::Feature;
use std::io;
use tokio::time::Instant;

/// Protocol by which an agent runs programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExecSupport {
    /// Base protocol: one request, and one reply when the program has ended.
    Plain {
        /// True if the request can have a time limit.
        limits: bool,
    },
    /// Execs with ids, each with its own stream.
    Objects(AgentInstance),
}

/// Failure to open a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// An instance of the agent other than the requested one answered. The call was not sent.
    #[error("the agent was restarted")]
    Replaced,
    /// The guest was restored since. The call was not sent.
    #[error("the guest was restored or cloned: the program belongs to the guest that was saved")]
    Restored,
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<TransportError> for OpenError {
    fn from(error: TransportError) -> Self {
        Self::Call(error.into())
    }
}

impl AgentClient {
    /// Returns the protocol by which the agent runs programs. Waits before `deadline` for the first probe to be
    /// answered.
    pub(crate) async fn exec_support(&self, deadline: Instant) -> Result<ExecSupport, CallError> {
        self.reachable(deadline).await?;
        self.allows("exec")?;
        Ok(self.with_agent(|agent| match agent {
            None => ExecSupport::Plain { limits: false },
            Some(agent) if agent.supports(Feature::Exec) => {
                ExecSupport::Objects(AgentInstance::of(agent))
            }
            Some(agent) => ExecSupport::Plain { limits: agent.protocol >= 2 },
        }))
    }

    /// Returns the identity of the agent that answered last; `None` for a base agent.
    pub(crate) fn instance(&self) -> Option<AgentInstance> {
        self.with_agent(|agent| agent.map(AgentInstance::of))
    }

    /// Opens a forward's stream on its lane before `deadline`, to whichever instance of the agent answers. Never retries.
    ///
    /// Safe to cancel: the connection is then not reused.
    pub(crate) async fn open_forward<C: Call>(
        &self,
        lane: Lane,
        call: &C,
        deadline: Instant,
    ) -> Result<(C::Reply, AgentStream), CallError> {
        self.open_in(lane, call, None, deadline).await.map_err(|error| match error {
            OpenError::Call(error) => error,
            OpenError::Replaced | OpenError::Restored => {
                TransportError::Lost { sent: false }.into()
            }
        })
    }

    /// Opens a stream before `deadline`; if `only` is given, only to that instance. Never retries.
    ///
    /// Safe to cancel: the connection is then not reused.
    pub(crate) async fn open<C: Call>(
        &self,
        call: &C,
        only: Option<&AgentInstance>,
        deadline: Instant,
    ) -> Result<(C::Reply, AgentStream), OpenError> {
        self.open_in(Lane::Stream, call, only, deadline).await
    }

    async fn open_in<C: Call>(
        &self,
        lane: Lane,
        call: &C,
        only: Option<&AgentInstance>,
        deadline: Instant,
    ) -> Result<(C::Reply, AgentStream), OpenError> {
        let mut checkout = self.checkout(lane, false, deadline).await?;
        let epoch = checkout.epoch().clone();
        let connection = checkout.connection().ok_or(TransportError::Lost { sent: false })?;
        if let Some(only) = only {
            let checked = check_instance(connection, only, deadline).await;
            match checked.map_err(|error| self.failed(error, None, &epoch))? {
                InstanceMatch::Same => {}
                InstanceMatch::Next => return Err(OpenError::Restored),
                InstanceMatch::Other => return Err(OpenError::Replaced),
            }
        }
        self.check_incarnation(connection, deadline).await.map_err(|error| match error {
            PreconditionError::Other(answered) => {
                CallError::from(AgentRefusal::OtherIncarnation(answered)).into()
            }
            PreconditionError::Exchange(error) => OpenError::Call(self.failed(error, None, &epoch)),
        })?;
        let asked = Instant::now();
        let opened = tokio::select! {
            opened = connection.open(call, deadline) => opened,
            () = epoch.cancelled() => {
                let source = io::ErrorKind::ConnectionAborted.into();
                Err(ExchangeError::Lost { sent: true, source })
            }
        };
        let reply = opened.map_err(|error| self.failed(error, Some(asked), &epoch))?;
        self.succeeded();
        let pace = self.pool().pace();
        let pool = self
            .with_agent(|agent| agent.is_some_and(|agent| agent.supports(Feature::Reuse)))
            .then(|| checkout.pool());
        let (connection, epoch, permit) =
            checkout.into_parts().ok_or(TransportError::Lost { sent: true })?;
        Ok((reply, AgentStream::new(connection.into_parts(), epoch, permit, pace, pool)))
    }
}
