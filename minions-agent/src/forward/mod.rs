//! Connections to ports and sockets inside the guest, and from listening sockets inside the guest to the host.
//!
//! ```text
//!  forward_open ───▶ ForwardPolicy ─▶ dial ─▶ TargetSocket ⇄ session::forward ⇄ host
//!  forward_listen ─▶ ForwardPolicy ─▶ bind ─▶ OpenListener ─▶ session::listener ─▶ host
//!  forward_accept ─▶ ListenerRegistry ──────▶ TargetSocket ⇄ session::forward ⇄ host
//! ```
//!
//! The agent connects only to loopback addresses and Unix sockets, and listens only on them, unless `--allow-forward`
//! names more: access to a VM must not give access to the networks of this VM.
//!
//! # Layout
//!
//! * [`policy`]: permitted targets and listening addresses.
//! * `target`: the connection to a target.
//! * `bind`: creation of listening sockets. `socket_owner`: the user that owns one. `listeners`: their connections.

mod bind;
mod error;
mod listeners;
pub mod policy;
mod socket_owner;
mod target;

pub(crate) use error::ForwardError;
pub(crate) use listeners::OpenListener;
pub(crate) use target::{TargetReader, TargetSocket, TargetWriter};

use bind::BoundSocket;
use listeners::{ForwardLimits, ForwardPermits, ListenerRegistry, MAX_LISTENERS};
use minions_proto::message::{
    DEFAULT_FORWARD_TIMEOUT_MS, ForwardAccept, ForwardAddress, ForwardListen, ForwardOpen,
    ListenerId,
};
use policy::ForwardPolicy;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use socket_owner::SocketOwner;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit of forwards at the same time.
const MAX_FORWARDS: usize = 1024;

/// Number of descriptors that forwards leave for connections and programs.
const OTHER_DESCRIPTORS: u64 = 384;

/// Limit of sockets that are being bound at the same time.
const MAX_BINDS: usize = 8;

/// Deadline for binding a socket. Shorter than that of the host for the reply.
const BIND_DEADLINE: Duration = Duration::from_secs(10);

/// Opens forwards and listeners, at most [`MAX_FORWARDS`] at the same time.
#[derive(Debug)]
pub(crate) struct ForwardDialer {
    policy: ForwardPolicy,
    limits: ForwardLimits,
    /// Limit of sockets that are being bound. The file system of a path may never answer, and then the thread that
    /// binds the socket does not end.
    binds: Arc<Semaphore>,
    listeners: ListenerRegistry,
    /// Directory for private sockets.
    run_dir: PathBuf,
}

/// Open connection to a target.
#[derive(Debug)]
pub(crate) struct OpenForward {
    pub(crate) socket: TargetSocket,
    /// Address that the agent connected to, for the reply to the host.
    pub(crate) address: String,
    /// True if every end other than that of both directions resets the connection.
    pub(crate) is_reset_on_failure: bool,
    _permits: ForwardPermits,
}

impl OpenForward {
    /// Closes the connection before its end.
    pub(crate) fn abort(self) {
        if self.is_reset_on_failure {
            self.socket.reset();
        }
    }
}

impl ForwardDialer {
    /// Creates the dialer. `run_dir` is the directory for private sockets.
    pub(crate) fn new(policy: ForwardPolicy, run_dir: PathBuf) -> Self {
        Self {
            policy,
            limits: ForwardLimits::new(limit()),
            binds: Arc::new(Semaphore::new(MAX_BINDS)),
            listeners: ListenerRegistry::default(),
            run_dir,
        }
    }

    /// Connects to a target.
    ///
    /// Cancel safe: dropping the future closes the connection.
    pub(crate) async fn open(&self, open: &ForwardOpen) -> Result<OpenForward, ForwardError> {
        let target = open.target()?;
        let slot = self.slot()?;
        let patience = open.timeout_ms.unwrap_or(DEFAULT_FORWARD_TIMEOUT_MS);
        let dialed = target::dial(&target, &self.policy);
        let dialed = tokio::time::timeout(Duration::from_millis(patience), dialed).await;
        let late = || ForwardError::Connect { target, source: Errno::TIMEDOUT.into() };
        let (socket, address) = dialed.unwrap_or_else(|_| Err(late()))?;
        Ok(OpenForward { socket, address, is_reset_on_failure: false, _permits: slot.into() })
    }

    /// Listens in the guest.
    ///
    /// Dropping the future closes the socket, as soon as it exists, and removes its file.
    pub(crate) async fn listen(
        &self,
        listen: &ForwardListen,
    ) -> Result<OpenListener, ForwardError> {
        let address = listen.address()?;
        if !self.policy.permits_listening(&address) {
            return Err(ForwardError::ForbiddenAddress(address));
        }
        let busy = || ForwardError::Busy { limit: MAX_LISTENERS, what: "listeners" };
        if !self.listeners.has_room() {
            return Err(busy());
        }
        let slot = self.slot()?;
        let owner = listen.owner.as_deref().map(SocketOwner::find).transpose()?;
        let failed = |source| ForwardError::Listen { address: address.clone(), source };
        let id = new_id().map_err(failed)?;
        let bound = self.bind(&address, owner, &id).await?.map_err(failed)?;
        let listener = self.listeners.add(id, bound, self.limits.clone(), slot);
        listener.map_err(failed)?.ok_or_else(busy)
    }

    /// Binds a socket in a thread for blocking work, for at most [`BIND_DEADLINE`].
    async fn bind(
        &self,
        address: &ForwardAddress,
        owner: Option<SocketOwner>,
        id: &ListenerId,
    ) -> Result<io::Result<(BoundSocket, ForwardAddress)>, ForwardError> {
        let busy =
            |_| ForwardError::Busy { limit: MAX_BINDS, what: "listeners that are being opened" };
        let permit = Arc::clone(&self.binds).try_acquire_owned().map_err(busy)?;
        let (wanted, run_dir, name) = (address.clone(), self.run_dir.clone(), id.to_string());
        let binding = crate::task::spawn_blocking(move || {
            let bound = bind::bind(&wanted, owner, &run_dir, &name);
            drop(permit);
            bound
        });
        Ok(match tokio::time::timeout(BIND_DEADLINE, binding).await {
            Ok(bound) => bound.map_err(io::Error::other).and_then(|bound| bound),
            Err(_) => Err(Errno::TIMEDOUT.into()),
        })
    }

    /// Takes a connection that waits on a listener.
    pub(crate) fn accept(&self, accept: &ForwardAccept) -> Result<OpenForward, ForwardError> {
        let ForwardAccept { listener, connection } = accept;
        let taken = self.listeners.take(listener, *connection);
        let taken = taken.ok_or(ForwardError::NotWaiting { connection: *connection })?;
        let address = taken.peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
        let (socket, permits) = (taken.socket, taken.permits);
        Ok(OpenForward { socket, address, is_reset_on_failure: true, _permits: permits })
    }

    /// Takes a part of the limit of forwards.
    fn slot(&self) -> Result<OwnedSemaphorePermit, ForwardError> {
        let slot = Arc::clone(&self.limits.forwards).try_acquire_owned();
        slot.map_err(|_| ForwardError::Busy { limit: limit(), what: "forwards" })
    }
}

/// Returns a new random id.
fn new_id() -> io::Result<ListenerId> {
    // Every read of this file returns a new random UUID.
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    id.trim_end().parse().map_err(io::Error::other)
}

/// Returns the limit of forwards: each has two descriptors, and some must remain for everything else.
fn limit() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let forwards = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2;
    usize::try_from(forwards).unwrap_or(MAX_FORWARDS).clamp(1, MAX_FORWARDS)
}

/// Waits until the socket files of all closed listeners are removed, for at most two seconds. Blocks: for the end of the
/// agent.
pub fn finish_removals() {
    bind::finish_removals();
}
