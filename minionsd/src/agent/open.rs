//! The call that opens a stream, and which agent it is that answers.
//!
//! A program must not run twice because its request was sent again, so who asks again makes sure
//! that it asks the same agent: it alone knows which ids it has seen. A connection leads to one
//! agent for as long as it lives, so a health check on it tells whose the next reply will be.

use super::client::AgentClient;
use super::{AgentStream, CallError, Lane, TransportError};
use minions_proto::Call;
use minions_proto::connection::ExchangeError;
use minions_proto::message::{AgentInfo, BootId, ExecAttached, Feature, HealthCheck, InstanceId};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How long an agent has to say which one it is.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// One start of an agent in one boot of its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    boot_id: BootId,
    instance_id: InstanceId,
}

impl Instance {
    fn of(agent: &AgentInfo) -> Self {
        Self { boot_id: agent.boot_id.clone(), instance_id: agent.instance_id.clone() }
    }
}

/// How an agent runs programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExecSupport {
    /// By one request and one reply.
    Plain {
        /// Whether the request can have a time limit.
        limits: bool,
    },
    /// As objects with an id, a stream to each.
    Objects(Instance),
}

/// Failure to open a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another instance of the agent answers than the requested one. The call was not sent.
    #[error("the agent was restarted")]
    Replaced,
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<TransportError> for OpenError {
    fn from(error: TransportError) -> Self {
        Self::Call(error.into())
    }
}

impl AgentClient {
    /// How the agent runs programs: known once it has answered a probe, which is waited for before
    /// `deadline`.
    pub(crate) async fn exec_support(&self, deadline: Instant) -> Result<ExecSupport, CallError> {
        self.reachable(deadline).await?;
        self.allows("exec")?;
        Ok(self.with_agent(|agent| match agent {
            None => ExecSupport::Plain { limits: false },
            Some(agent) if agent.supports(Feature::Exec) => {
                ExecSupport::Objects(Instance::of(agent))
            }
            Some(agent) => ExecSupport::Plain { limits: agent.protocol >= 2 },
        }))
    }

    /// Opens a stream before `deadline`, to no other agent than `only` if that is given. Never tries
    /// a second time.
    ///
    /// Safe to cancel: the connection is then closed.
    pub(crate) async fn open<C: Call<Reply = ExecAttached>>(
        &self,
        call: &C,
        only: Option<&Instance>,
        deadline: Instant,
    ) -> Result<(ExecAttached, AgentStream), OpenError> {
        let mut checkout = self.checkout(Lane::Beside, false, deadline).await?;
        let epoch = checkout.epoch().clone();
        let connection = checkout.connection().ok_or(TransportError::Lost { sent: false })?;
        if let Some(only) = only {
            let asked = deadline.min(Instant::now() + ASK_DEADLINE);
            let health = connection.call(&HealthCheck {}, asked).await;
            // Whatever went wrong, the call itself was not sent.
            let health = health.map_err(|_| self.failed(unsent(), None, &epoch))?;
            if health.agent.as_ref().map(Instance::of).as_ref() != Some(only) {
                return Err(OpenError::Replaced);
            }
        }
        let asked = Instant::now();
        let opened = tokio::select! {
            opened = connection.open(call, deadline) => opened,
            () = epoch.cancelled() => {
                let source = io::ErrorKind::ConnectionAborted.into();
                Err(ExchangeError::Lost { sent: true, source })
            }
        };
        let attached = opened.map_err(|error| self.failed(error, Some(asked), &epoch))?;
        self.succeeded();
        let pace = self.pool().pace();
        let (connection, epoch, permit) =
            checkout.into_parts().ok_or(TransportError::Lost { sent: true })?;
        Ok((attached, AgentStream::new(connection.into_parts(), epoch, permit, pace)))
    }
}

fn unsent() -> ExchangeError {
    ExchangeError::Lost { sent: false, source: io::ErrorKind::ConnectionAborted.into() }
}
