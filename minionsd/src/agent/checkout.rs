//! A connection of the pool for the length of one call.

use super::AgentConnection;
use super::gate::Barred;
use super::pool::{Idle, Pool};
use minions_api::vm::Failure;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why there is no connection to use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckoutError {
    /// Too many calls are under way or waiting.
    #[error("all connections to this VM are in use")]
    Exhausted,
    /// The caller's own deadline came first.
    #[error("deadline passed while waiting for a connection")]
    TimedOut,
    /// A new one can't be made.
    #[error("{message}")]
    Connect {
        /// The layer that failed.
        failure: Failure,
        /// The same for people.
        message: String,
    },
    /// There is no idle one, and a new one may not be made.
    #[error("the VM must not be dialled")]
    Barred(Barred),
}

/// An idle connection that is being asked. Goes back to the pool when dropped.
pub(super) struct Borrowed<'a> {
    /// `None` only once it was taken.
    idle: Option<Idle>,
    epoch: CancellationToken,
    pool: &'a Pool,
}

impl<'a> Borrowed<'a> {
    pub(super) fn new(idle: Idle, epoch: CancellationToken, pool: &'a Pool) -> Self {
        Self { idle: Some(idle), epoch, pool }
    }

    pub(super) fn connection(&mut self) -> Option<&mut AgentConnection> {
        self.idle.as_mut().map(|idle| &mut idle.connection)
    }

    /// Takes the connection for good.
    pub(super) fn take(mut self) -> Option<AgentConnection> {
        self.idle.take().map(|idle| idle.connection)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let Some(idle) = self.idle.take() else { return };
        self.pool.give_back(idle, &self.epoch);
    }
}

/// A connection for the length of one call. Goes back to the pool when dropped, if its last
/// exchange was complete.
#[derive(Debug)]
pub(crate) struct Checkout {
    /// `None` only while it is being replaced or given back.
    connection: Option<AgentConnection>,
    reused: bool,
    epoch: CancellationToken,
    pool: Pool,
    permit: OwnedSemaphorePermit,
}

impl Checkout {
    pub(super) fn new(
        connection: AgentConnection,
        reused: bool,
        epoch: CancellationToken,
        pool: Pool,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { connection: Some(connection), reused, epoch, pool, permit }
    }

    /// Closes the connection, which turned out to be dead.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    /// Continues with a new connection.
    pub(super) fn replace(&mut self, connection: AgentConnection, epoch: CancellationToken) {
        self.connection = Some(connection);
        self.epoch = epoch;
        self.reused = false;
    }

    /// Whether it has carried a call before: if so, it may be dead without anybody having noticed.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Cancelled when the agent at its other end is gone.
    pub(crate) fn epoch(&self) -> &CancellationToken {
        &self.epoch
    }

    /// Takes the connection for good, with the permit that bounds how many there are.
    pub(super) fn into_parts(
        mut self,
    ) -> Option<(AgentConnection, CancellationToken, OwnedSemaphorePermit)> {
        let connection = self.connection.take()?;
        // All of it: what stays with us counts for nothing.
        let permit = self.permit.split(1)?;
        Some((connection, self.epoch.clone(), permit))
    }

    /// The connection.
    pub(crate) fn connection(&mut self) -> Option<&mut AgentConnection> {
        self.connection.as_mut()
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        self.pool.give_back(Idle { connection, since: Instant::now() }, &self.epoch);
    }
}
