//! The health of one agent.

use super::client::AgentClient;
use super::{CallError, Lane};
use minions_proto::message::{Health, HealthCheck};
use std::time::SystemTime;
use tokio::time::Instant;

/// An agent's answer, and the times by the host's clock between which it was given.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) health: Health,
    pub(crate) asked: SystemTime,
    pub(crate) answered: SystemTime,
}

impl AgentClient {
    /// Asks the agent for its health now.
    ///
    /// Cancel safe: a connection in use is then closed.
    pub(crate) async fn health(&self, deadline: Instant) -> Result<Answered, CallError> {
        let asked = SystemTime::now();
        let health = self.call(&HealthCheck {}, Lane::Quick, deadline).await?;
        Ok(Answered { health, asked, answered: SystemTime::now() })
    }
}
