//! Settings that all commands have.

use crate::client::CallDeadlines;
use crate::output::Printer;
use std::time::Duration;

/// Longest time that minionsd takes for a call that an agent answers immediately.
const QUICK: Duration = Duration::from_secs(15);

/// Settings of a command in addition to its own arguments.
pub(crate) struct Context<'a> {
    pub(super) printer: &'a Printer,
    pub(super) timeout: Option<Duration>,
}

impl Context<'_> {
    /// Returns the deadlines of a call that the agent answers immediately.
    pub(super) fn quick(&self) -> CallDeadlines {
        CallDeadlines { asked: self.timeout, at_most: QUICK }
    }

    /// Returns the deadlines of a call that minionsd answers without the agent. Such calls take no `timeout_ms`.
    pub(super) fn registry() -> CallDeadlines {
        CallDeadlines { asked: None, at_most: QUICK }
    }

    /// Returns the deadline of a call directly to the agent.
    pub(super) fn quick_direct(&self) -> Duration {
        self.timeout.unwrap_or(QUICK)
    }
}
