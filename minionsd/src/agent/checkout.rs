//! Loan of a pool connection for the duration of one call.

use super::connector::AgentConnection;
use super::pooled::{IdleConnection, PooledConnections};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Idle connection that is being tested with a health check. Dropping it returns the connection to the pool.
pub(super) struct TestedConnection<'a> {
    /// `None` only after [`take`](Self::take).
    idle: Option<IdleConnection>,
    epoch: CancellationToken,
    pooled: &'a PooledConnections,
}

impl<'a> TestedConnection<'a> {
    pub(super) fn new(
        idle: IdleConnection,
        epoch: CancellationToken,
        pooled: &'a PooledConnections,
    ) -> Self {
        Self { idle: Some(idle), epoch, pooled }
    }

    pub(super) fn connection(&mut self) -> Option<&mut AgentConnection> {
        self.idle.as_mut().map(|idle| &mut idle.connection)
    }

    /// Removes the connection, so that it is not returned to the pool on drop.
    pub(super) fn take(mut self) -> Option<AgentConnection> {
        self.idle.take().map(|idle| idle.connection)
    }
}

impl Drop for TestedConnection<'_> {
    fn drop(&mut self) {
        let Some(idle) = self.idle.take() else { return };
        self.pooled.give_back(idle, &self.epoch);
    }
}

/// Connection for the duration of one call. Dropping it returns the connection to the pool if the last
/// exchange was complete.
#[derive(Debug)]
pub(crate) struct Checkout {
    /// `None` only while the connection is being replaced or returned.
    connection: Option<AgentConnection>,
    reused: bool,
    epoch: CancellationToken,
    pooled: Arc<PooledConnections>,
    permit: OwnedSemaphorePermit,
}

impl Checkout {
    pub(super) fn new(
        connection: AgentConnection,
        reused: bool,
        epoch: CancellationToken,
        pooled: Arc<PooledConnections>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { connection: Some(connection), reused, epoch, pooled, permit }
    }

    /// Closes the connection, which turned out to be dead or is not needed any more.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    /// Continues with a new connection.
    pub(super) fn replace(&mut self, connection: AgentConnection, epoch: CancellationToken) {
        self.connection = Some(connection);
        self.epoch = epoch;
        self.reused = false;
    }

    /// Reports whether the connection has carried an earlier call. If so, it may be dead without the pool
    /// having noticed.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Returns a token that is cancelled when the agent at the other end is gone.
    pub(crate) fn epoch(&self) -> &CancellationToken {
        &self.epoch
    }

    /// Returns the pool that the connection belongs to.
    pub(super) fn pool(&self) -> Arc<PooledConnections> {
        Arc::clone(&self.pooled)
    }

    /// Removes the connection from the pool, together with the permit that bounds the number of connections.
    pub(super) fn into_parts(
        mut self,
    ) -> Option<(AgentConnection, CancellationToken, OwnedSemaphorePermit)> {
        let connection = self.connection.take()?;
        // This moves the whole permit: the one that is left and dropped here holds nothing.
        let permit = self.permit.split(1)?;
        Some((connection, self.epoch.clone(), permit))
    }

    /// Returns the connection; `None` while it is being replaced.
    pub(crate) fn connection(&mut self) -> Option<&mut AgentConnection> {
        self.connection.as_mut()
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let since = Instant::now();
        let idle = IdleConnection { connection, since, after_stream: false };
        self.pooled.give_back(idle, &self.epoch);
    }
}
