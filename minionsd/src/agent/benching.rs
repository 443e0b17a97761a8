//! Access to a pool for benches, to measure what a call through it costs in addition to the exchange itself.

use super::connector::{Connector, Dials};
use super::pool::{Lane, Pool};
use super::vm_socket::{SocketId, VmSocket};
use crate::budget::Budget;
use crate::descriptors::Descriptors;
use crate::metrics::Meters;
use minions_proto::message::{Health, HealthCheck};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Deadline for each call of a bench, far longer than any of them takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pool of one VM.
#[derive(Debug)]
pub struct BenchedPool(Pool);

impl BenchedPool {
    /// Creates a pool of `limit` connections to the VM whose socket is at `path`.
    ///
    /// # Errors
    ///
    /// Fails if the file at `path` cannot be examined.
    pub fn new(path: &Path, limit: usize) -> io::Result<Self> {
        let socket = VmSocket { path: path.to_owned(), id: SocketId::at(path)? };
        let dials = Dials::new(
            limit,
            TaskTracker::new(),
            Descriptors::of_process(),
            Budget::default(),
            Arc::new(Meters::default()),
        );
        Ok(Self(Pool::new(Connector::new(socket, dials), limit, Arc::default())))
    }

    /// Checks out a connection and returns it to the pool.
    ///
    /// # Errors
    ///
    /// Any error of a checkout.
    pub async fn check_out(&self) -> io::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        self.0.checkout(Lane::Quick, true, deadline).await.map(drop).map_err(io::Error::other)
    }

    /// Performs one health check over a connection of the pool.
    ///
    /// # Errors
    ///
    /// Any error of a checkout or a call.
    pub async fn health(&self) -> io::Result<Health> {
        let deadline = Instant::now() + DEADLINE;
        let checkout = self.0.checkout(Lane::Quick, true, deadline).await;
        let mut checkout = checkout.map_err(io::Error::other)?;
        let connection = checkout.connection().ok_or(io::ErrorKind::NotConnected)?;
        connection.call(&HealthCheck {}, deadline).await.map_err(io::Error::other)
    }
}
