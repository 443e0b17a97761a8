//! Connections to ports and sockets inside the guest.
//!
//! ```text
//!  forward_open ─▶ ForwardPolicy ─▶ dial ─▶ TargetSocket ⇄ session::forward ⇄ host
//! ```
//!
//! The agent connects only to loopback addresses and Unix sockets, unless `--allow-forward` names more: access to a
//! VM must not give access to the networks of this VM.
//!
//! # Layout
//!
//! * [`policy`]: permitted targets.
//! * `target`: the connection to a target.

mod error;
pub mod policy;
mod target;

pub(crate) use error::ForwardError;
pub(crate) use target::{TargetReader, TargetSocket, TargetWriter};

use minions_proto::message::{DEFAULT_FORWARD_TIMEOUT_MS, ForwardOpen};
use policy::ForwardPolicy;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit of forwards at the same time.
const MAX_FORWARDS: usize = 1024;

/// Number of descriptors that forwards leave for connections and programs.
const OTHER_DESCRIPTORS: u64 = 384;

/// Opens forwards, at most [`MAX_FORWARDS`] at the same time.
#[derive(Debug)]
pub(crate) struct ForwardDialer {
    policy: ForwardPolicy,
    slots: Arc<Semaphore>,
}

/// Open connection to a target.
#[derive(Debug)]
pub(crate) struct OpenForward {
    pub(crate) socket: TargetSocket,
    /// Address that the agent connected to, for the reply to the host.
    pub(crate) address: String,
    _slot: OwnedSemaphorePermit,
}

impl ForwardDialer {
    pub(crate) fn new(policy: ForwardPolicy) -> Self {
        Self { policy, slots: Arc::new(Semaphore::new(limit())) }
    }

    /// Connects to a target.
    ///
    /// Cancel safe: dropping the future closes the connection.
    pub(crate) async fn open(&self, open: &ForwardOpen) -> Result<OpenForward, ForwardError> {
        let target = open.target()?;
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ForwardError::Busy { limit: limit() })?;
        let patience = open.timeout_ms.unwrap_or(DEFAULT_FORWARD_TIMEOUT_MS);
        let dialed = target::dial(&target, &self.policy);
        let dialed = tokio::time::timeout(Duration::from_millis(patience), dialed).await;
        let late = || ForwardError::Connect { target, source: Errno::TIMEDOUT.into() };
        let (socket, address) = dialed.unwrap_or_else(|_| Err(late()))?;
        Ok(OpenForward { socket, address, _slot: slot })
    }
}

/// Returns the limit of forwards: each has two descriptors, and some must remain for everything else.
fn limit() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let forwards = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2;
    usize::try_from(forwards).unwrap_or(MAX_FORWARDS).clamp(1, MAX_FORWARDS)
}
