//! Connections to ports and sockets inside the guest.
//!
//! ```text
//!  forward_open ─▶ ForwardPolicy ─▶ dial ─▶ TargetSocket ⇄ session::forward ⇄ host
//! ```
//!
//! The agent dials only loopback addresses and Unix sockets, unless `--allow-forward` names more: a caller that may
//! reach one VM must not reach the networks that this VM is in.
//!
//! # Layout
//!
//! * [`policy`]: targets that are permitted.
//! * `target`: the connection to a target.

pub mod policy;
mod target;

pub(crate) use target::{TargetReader, TargetSocket, TargetWriter};

use minions_proto::message::{DEFAULT_FORWARD_TIMEOUT_MS, ForwardOpen, ForwardTarget};
use minions_proto::{AgentError, ErrorCode, Invalid};
use policy::ForwardPolicy;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit of forwards at the same time.
const MAX_FORWARDS: usize = 1024;

/// Descriptors that forwards leave for connections and programs.
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
    /// Address of the target, for the host.
    pub(crate) address: String,
    _slot: OwnedSemaphorePermit,
}

/// Reason why a forward was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the limit of {} forwards is reached; try again later", limit())]
    Busy,
    #[error(
        "this agent connects only to its loopback addresses and to Unix sockets; to permit {0}, name it in the option \
         --allow-forward of minions-agent in the guest"
    )]
    Forbidden(ForwardTarget),
    #[error("cannot resolve {target}: {source}")]
    Resolve { target: ForwardTarget, source: io::Error },
    #[error("cannot connect to {target}: {source} ({name})", name = name_of(source))]
    Connect { target: ForwardTarget, source: io::Error },
}

impl ForwardDialer {
    pub(crate) fn new(policy: ForwardPolicy) -> Self {
        Self { policy, slots: Arc::new(Semaphore::new(limit())) }
    }

    /// Connects to a target. Dropping the future closes the connection.
    pub(crate) async fn open(&self, open: &ForwardOpen) -> Result<OpenForward, ForwardError> {
        let target = open.target()?;
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| ForwardError::Busy)?;
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

fn name_of(error: &io::Error) -> String {
    Errno::from_io_error(error).map_or_else(|| "EIO".to_owned(), crate::file_op::errno_name)
}

impl From<ForwardError> for AgentError {
    fn from(error: ForwardError) -> Self {
        let message = error.to_string();
        match error {
            ForwardError::Invalid(invalid) => invalid.into(),
            ForwardError::Busy => Self::new(ErrorCode::Busy, message),
            ForwardError::Forbidden(_) => Self {
                field: Some("target".to_owned()),
                ..Self::new(ErrorCode::Forbidden, message)
            },
            ForwardError::Resolve { source, .. } | ForwardError::Connect { source, .. } => {
                let errno = source.raw_os_error();
                Self::new(ErrorCode::ForwardFailed, message).with_errno(errno)
            }
        }
    }
}
