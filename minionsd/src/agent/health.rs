//! One agent's health, asked for as often as somebody wants to know.

use super::client::AgentClient;
use super::{CallError, Lane};
use minions_proto::message::{Health, HealthCheck};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// An agent's answer, and between which times by the host's clock it was given.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) health: Health,
    pub(crate) asked: SystemTime,
    pub(crate) answered: SystemTime,
}

impl AgentClient {
    /// What the agent answers now. Those who wait at the same time may be given the same answer.
    ///
    /// Safe to cancel: a connection in use is then closed.
    pub(crate) async fn health(&self, deadline: Instant) -> Result<Arc<Answered>, CallError> {
        let question = async {
            let asked = SystemTime::now();
            let health = self.call(&HealthCheck {}, Lane::Quick, deadline).await?;
            Ok(Arc::new(Answered { health, asked, answered: SystemTime::now() }))
        };
        self.healths().ask(question, deadline).await
    }
}
