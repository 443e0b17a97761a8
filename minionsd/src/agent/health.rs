//! Health check of one agent.

use super::client::AgentClient;
use super::error::CallError;
use super::pool::Lane;
use minions_proto::message::{Health, HealthCheck};
use std::time::SystemTime;
use tokio::time::Instant;

/// Health of an agent, and the times on the host's clock between which the agent reported it.
#[derive(Debug)]
pub(crate) struct TimedHealth {
    pub(crate) health: Health,
    pub(crate) asked: SystemTime,
    pub(crate) answered: SystemTime,
}

impl AgentClient {
    /// Requests the agent's current health.
    ///
    /// Safe to cancel: the connection is then not reused.
    pub(crate) async fn health(&self, deadline: Instant) -> Result<TimedHealth, CallError> {
        let asked = SystemTime::now();
        let health = self.call(&HealthCheck {}, Lane::Quick, deadline).await?;
        Ok(TimedHealth { health, asked, answered: SystemTime::now() })
    }

    /// Checks the caller's precondition, if there is one, by a health check: for operations that another task of minionsd
    /// carries out. The agent may still be replaced between this check and the operation.
    ///
    /// Safe to cancel.
    pub(crate) async fn check_precondition(&self, deadline: Instant) -> Result<(), CallError> {
        if self.has_precondition() {
            self.health(deadline).await?;
        }
        Ok(())
    }
}
