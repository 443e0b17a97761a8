//! Calls to the daemon that a typed line selects.

use crate::cli::PartialLine;
use crate::client::{CallDeadlines, DaemonClient};
use crate::config::ClientConfig;
use serde::de::DeserializeOwned;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout_at};

/// Longest time that all answers together may take. A person notices a longer pause after Tab.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// Client for one typed line.
#[derive(Debug)]
pub(super) struct LineClient {
    pub(super) words: PartialLine,
    /// End of the time for answers, which starts with the first question.
    deadline: OnceLock<Instant>,
}

impl LineClient {
    pub(super) fn new(words: PartialLine) -> Self {
        Self { words, deadline: OnceLock::new() }
    }

    /// Sends `GET path` to the daemon.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let deadlines = CallDeadlines { asked: None, at_most: PATIENCE };
        let client = self.client()?;
        self.within_patience(client.get(path, deadlines))?.ok()
    }

    /// Returns a client of the daemon that the line selects; none if it selects an agent.
    pub(super) fn client(&self) -> Option<DaemonClient> {
        let config = ClientConfig::load(&self.words.cli).ok().filter(|c| c.agent.is_none())?;
        DaemonClient::new(&config).ok()
    }

    /// Waits for an answer until the time for all answers is over.
    pub(super) fn within_patience<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let answer = runtime.block_on(async {
            let deadline = *self.deadline.get_or_init(|| Instant::now() + PATIENCE);
            timeout_at(deadline, answer).await
        });
        // A lookup of a host name may block a thread for longer.
        runtime.shutdown_background();
        answer.ok()
    }
}
