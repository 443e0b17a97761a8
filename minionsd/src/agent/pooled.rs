//! Connections to one agent that no call uses at the moment: idle ones, and parked ones whose reply is outstanding.

use super::connector::AgentConnection;
use crate::descriptors::Descriptors;
use minions_proto::connection::Liveness;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Idle and parked connections to one agent.
#[derive(Debug)]
pub(super) struct PooledConnections {
    /// Most idle, and most parked connections.
    limit: usize,
    descriptors: Descriptors,
    /// Makes the supervisor probe.
    nudge: Arc<Notify>,
    kept: Mutex<KeptConnections>,
}

#[derive(Debug, Default)]
struct KeptConnections {
    idle: Vec<IdleConnection>,
    /// Connections of abandoned calls whose reply is outstanding, oldest first. They are closed when the agent
    /// answers a probe.
    parked: VecDeque<AgentConnection>,
    /// Token that is cancelled when another agent replaces the one that the connections lead to: the old
    /// connections are useless then.
    epoch: CancellationToken,
}

/// Connection without an outstanding reply.
#[derive(Debug)]
pub(super) struct IdleConnection {
    pub(super) connection: AgentConnection,
    pub(super) since: Instant,
    /// True if it has carried no call since a stream: the agent closes it if no request follows soon.
    pub(super) after_stream: bool,
}

impl PooledConnections {
    pub(super) fn new(limit: usize, descriptors: Descriptors, nudge: Arc<Notify>) -> Self {
        Self { limit, descriptors, nudge, kept: Mutex::default() }
    }

    /// Returns the token of the current epoch.
    pub(super) fn epoch(&self) -> CancellationToken {
        self.kept().epoch.clone()
    }

    /// Returns the number of idle connections.
    pub(super) fn idle(&self) -> usize {
        self.kept().idle.len()
    }

    /// Closes all idle connections.
    pub(super) fn close_idle(&self) {
        self.kept().idle.clear();
    }

    /// Closes the connections that have been idle for `timeout`, or that the agent has closed.
    pub(super) fn evict_idle(&self, timeout: Duration) {
        let mut kept = self.kept();
        kept.idle.retain_mut(|idle| {
            idle.since.elapsed() < timeout && idle.connection.liveness() == Liveness::Quiet
        });
        kept.idle.shrink_to_fit();
    }

    /// Closes the parked connections.
    pub(super) fn close_parked(&self) {
        self.kept().parked.clear();
    }

    /// Closes all connections, and ends the epoch of those in use.
    pub(super) fn flush(&self) {
        let mut kept = self.kept();
        kept.epoch.cancel();
        *kept = KeptConnections::default();
    }

    /// Removes the idle connection that was returned last, and returns it with its epoch.
    pub(super) fn pop(&self) -> Option<(IdleConnection, CancellationToken)> {
        let mut kept = self.kept();
        Some((kept.idle.pop()?, kept.epoch.clone()))
    }

    /// Takes a connection back. It becomes idle if its last exchange was complete. If a reply is outstanding, the VM
    /// may be paused, so the connection is parked until the agent has answered a probe, which this requests.
    pub(super) fn give_back(&self, idle: IdleConnection, epoch: &CancellationToken) {
        let IdleConnection { mut connection, since, after_stream } = idle;
        if self.descriptors.are_short() {
            // Other connections need the descriptor more than the next call to this VM does.
            return;
        }
        connection.get_mut().rest();
        let mut kept = self.kept();
        // `flush` takes the same lock, so it cannot run between this check and the push.
        if epoch.is_cancelled() {
            return;
        }
        if connection.is_reusable() {
            if kept.idle.len() < self.limit {
                // Most VMs never have a second one.
                kept.idle.reserve_exact(1);
                kept.idle.push(IdleConnection { connection, since, after_stream });
            }
        } else if connection.is_unanswered() {
            if kept.parked.len() >= self.limit {
                kept.parked.pop_front();
            }
            kept.parked.push_back(connection);
            self.nudge.notify_one();
        }
    }

    /// Locks the connections. The lock is held for single operations only, and never across an await.
    fn kept(&self) -> MutexGuard<'_, KeptConnections> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
