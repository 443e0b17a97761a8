//! Dials of new connections to one agent.

use super::socket::AgentSocket;
use super::vm_socket::{SocketId, VmSocket};
use crate::budget::MemoryBudget;
use crate::descriptors::Descriptors;
use crate::metrics::Meters;
use minions_api::vm::Failure;
use minions_proto::AgentPort;
use minions_proto::connection::Connection;
use minions_proto::handshake::{HandshakeError, initiate};
use minions_proto::hybrid::{DialError, MAX_PATH_LEN, connect};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

/// Connection to an agent after a successful handshake.
pub(crate) type AgentConnection = Connection<AgentSocket>;

/// Time from `connect(2)` to `OK` that a call or a probe waits for. A guest whose vsock driver is up accepts within
/// milliseconds; before that, and while the VM is paused, `CONNECT` stays unanswered.
pub(crate) const DIAL_DEADLINE: Duration = Duration::from_secs(2);

/// Time after which a dial itself is given up. It continues after its caller has stopped waiting: a VMM may crash
/// or hang when a client disconnects between CONNECT and OK (vhost-device-vsock 0.3.0 does), and a guest that was
/// only paused answers later.
const ABANDON_AFTER: Duration = Duration::from_secs(120);

/// Most unanswered dials to one VM. A pool of the default size and its streams never need as many at the same
/// time; a VM that answers none of them is not dialled again.
const MAX_UNANSWERED: usize = 24;

/// Resources that the dials to all VMs share. The number of dials at the same time is limited, so when a thousand
/// sockets appear at once, they take turns. Each dial runs as a task for which the daemon waits, for a limited
/// time, when it stops. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Dials {
    limit: usize,
    turns: Arc<Semaphore>,
    tasks: TaskTracker,
    descriptors: Descriptors,
    budget: MemoryBudget,
    meters: Arc<Meters>,
}

impl Dials {
    /// Allows at most `limit` dials in flight, which take descriptors and memory from the daemon's limits.
    pub(crate) fn new(
        limit: usize,
        tasks: TaskTracker,
        descriptors: Descriptors,
        budget: MemoryBudget,
        meters: Arc<Meters>,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(limit));
        Self { limit, turns, tasks, descriptors, budget, meters }
    }

    /// Returns the number of dials that are waited for at the moment.
    pub(crate) fn in_flight(&self) -> usize {
        self.limit.saturating_sub(self.turns.available_permits())
    }

    pub(crate) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    pub(crate) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }
}

/// Failure of a dial.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// A layer reported an error.
    #[error("no connection to the agent")]
    Dial {
        /// The agent's port.
        port: AgentPort,
        /// Error, by layer.
        source: DialError,
    },
    /// The dial got no answer in time, or too many earlier dials are unanswered.
    #[error("no answer to CONNECT")]
    Unanswered,
    /// The path now leads to the socket of another VM than the caller meant.
    #[error("another socket has this name")]
    Replaced,
    /// The daemon has no file descriptor left for the connection.
    #[error("no descriptor left")]
    NoDescriptor,
}

impl ConnectError {
    /// Returns the layer that failed.
    pub(crate) fn failure(&self) -> Failure {
        let error = match self {
            Self::Unanswered => return Failure::NoHandshake,
            Self::Replaced => return Failure::NoSocket,
            Self::NoDescriptor => return Failure::DaemonExhausted,
            Self::Dial { source, .. } => source,
        };
        match error {
            DialError::NoSocket(_) => Failure::NoSocket,
            DialError::NoListener(_) => Failure::NoListener,
            // The daemon counts its own descriptors, but not those of the whole machine.
            DialError::Connect(error) if is_exhaustion(error) => Failure::DaemonExhausted,
            DialError::Connect(_) | DialError::NotAccepted => Failure::ConnectFailed,
            DialError::Handshake(error) => match error {
                HandshakeError::Refused => Failure::NoAgent,
                HandshakeError::TimedOut(_) => Failure::NoHandshake,
                HandshakeError::Truncated | HandshakeError::Line(_) => Failure::BadHandshake,
                HandshakeError::SplitWrite | HandshakeError::Io(_) => Failure::ConnectFailed,
            },
        }
    }

    /// Returns the description for people, with what to check.
    fn message(&self, socket: &Path) -> String {
        let (port, error) = match self {
            Self::Unanswered => {
                return "the VMM did not answer CONNECT: the guest is booting, paused, or hangs"
                    .into();
            }
            Self::Replaced => return "the socket file belongs to another VM".into(),
            Self::NoDescriptor => {
                return "minionsd has no file descriptor left; see its LimitNOFILE".into();
            }
            Self::Dial { port, source } => (port, source),
        };
        match error {
            DialError::NoSocket(_) => "the socket file vanished".into(),
            DialError::NoListener(_) => format!(
                "no process listens on the socket: the VMM is not running; before the VM is started again, \
                 remove the socket file: {}",
                remove_command(socket)
            ),
            DialError::Connect(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                format!(
                    "the path of the socket is longer than {MAX_PATH_LEN} bytes: shorten `socket_dir`, or the VM's name"
                )
            }
            DialError::Connect(error) => format!("cannot connect to the socket: {error}"),
            DialError::NotAccepted => {
                "the VMM does not accept connections: it hangs, or too many connections are waiting"
                    .into()
            }
            DialError::Handshake(error) => match error {
                HandshakeError::Refused => format!(
                    "the VMM closed after CONNECT: no agent listens on port {port} in the guest (yet)"
                ),
                other => format!("the handshake failed: {other}"),
            },
        }
    }
}

/// Reports whether the error is EMFILE or ENFILE.
fn is_exhaustion(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Process that listens on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) socket: SocketId,
    /// `None` if this daemon cannot see the process.
    pub(crate) pid: Option<u32>,
}

/// Dialler of one VM.
#[derive(Debug)]
pub(crate) struct Connector {
    path: PathBuf,
    /// Socket that is expected at the path.
    socket: Mutex<SocketId>,
    port: AgentPort,
    dials: Dials,
    unanswered: Arc<Semaphore>,
    /// Listener that the kernel reported to the last dial. `None` before the first dial.
    listener: Arc<watch::Sender<Option<Listener>>>,
}

impl Connector {
    /// Creates a connector for the default port.
    pub(crate) fn new(socket: VmSocket, dials: Dials) -> Self {
        let unanswered = Arc::new(Semaphore::new(MAX_UNANSWERED));
        let VmSocket { path, id } = socket;
        let port = AgentPort::DEFAULT;
        Self { path, socket: Mutex::new(id), port, dials, unanswered, listener: Arc::default() }
    }

    /// Sets the port.
    pub(crate) fn on_port(self, port: AgentPort) -> Self {
        Self { port, ..self }
    }

    /// Returns the agent's port.
    pub(crate) fn port(&self) -> AgentPort {
        self.port
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.path
    }

    /// Sets the socket to dial from now on, which has replaced the old one at the path.
    pub(crate) fn follow(&self, socket: SocketId) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }

    /// Returns the id of the socket that is dialled.
    pub(crate) fn socket_id(&self) -> SocketId {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn descriptors(&self) -> &Descriptors {
        self.dials.descriptors()
    }

    /// Watches the process that listens. Each dial reports it as soon as it is connected.
    pub(crate) fn listeners(&self) -> watch::Receiver<Option<Listener>> {
        self.listener.subscribe()
    }

    /// Returns the pid of the process that listens, as the last dial reported it.
    pub(crate) fn listener(&self) -> Option<u32> {
        self.listener.borrow().and_then(|listener| listener.pid)
    }

    /// Returns the command that removes the socket file before the VM's next start.
    pub(crate) fn remove_command(&self) -> String {
        remove_command(&self.path)
    }

    /// Describes a failed dial: the layer that failed, and a message for people.
    pub(crate) fn describe(&self, error: &ConnectError) -> (Failure, String) {
        (error.failure(), error.message(&self.path))
    }

    /// Establishes a new connection. Waits for a turn among the dials, and then at most [`DIAL_DEADLINE`].
    ///
    /// Cancel safe, like [`start`](Self::start).
    pub(crate) async fn connect(&self) -> Result<AgentConnection, ConnectError> {
        let dialled = async {
            let mut dial = self.start().await?;
            let outcome = timeout(DIAL_DEADLINE, dial.outcome()).await;
            outcome.unwrap_or(Err(ConnectError::Unanswered))
        };
        dialled.await.inspect_err(|error| self.failed(error))
    }

    /// Counts a failed dial in the metrics.
    pub(crate) fn failed(&self, error: &ConnectError) {
        self.dials.meters.dial_failed(error.failure());
    }

    /// Waits for a turn, and starts a dial.
    ///
    /// Cancel safe: a dial runs in its own task and completes there even if its [`PendingDial`] is dropped. The
    /// number of these tasks is bounded.
    pub(crate) async fn start(&self) -> Result<PendingDial, ConnectError> {
        let place = Arc::clone(&self.unanswered)
            .try_acquire_owned()
            .map_err(|_| ConnectError::Unanswered)?;
        // Neither semaphore is ever closed.
        let turn = Arc::clone(&self.dials.turns).acquire_owned().await.ok();
        let descriptor = self.dials.descriptors.acquire().await;
        let descriptor = descriptor.ok_or(ConnectError::NoDescriptor)?;
        let (tell, told) = oneshot::channel();
        let socket = VmSocket { path: self.path.clone(), id: self.socket_id() };
        let port = self.port;
        let listener = Arc::clone(&self.listener);
        let share = self.dials.budget.share();
        self.dials.tasks.spawn(async move {
            let dialled = handshaked(&socket, port, &listener).await;
            drop(place);
            let dialled = dialled.map(|stream| AgentSocket::new(stream, share, descriptor));
            // If the caller no longer waits, the connection is closed. That is safe now that it is complete.
            let _ = tell.send(dialled);
        });
        Ok(PendingDial { told, turn, started: Instant::now() })
    }
}

/// Returns the shell command that removes a socket file. If `socket` is a symbolic link, the command removes its
/// target and keeps the link.
fn remove_command(socket: &Path) -> String {
    let file = std::fs::canonicalize(socket).unwrap_or_else(|_| socket.to_owned());
    let file = file.to_string_lossy();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%:,=".contains(&byte);
    if file.bytes().all(is_plain) {
        return format!("rm -f {file}");
    }
    format!("rm -f '{}'", file.replace('\'', r"'\''"))
}

/// Dial in progress. It completes even if this handle is dropped.
#[derive(Debug)]
pub(crate) struct PendingDial {
    told: oneshot::Receiver<Result<AgentSocket, ConnectError>>,
    /// Turn among the dials to all VMs.
    turn: Option<OwnedSemaphorePermit>,
    pub(crate) started: Instant,
}

impl PendingDial {
    /// Waits until the dial succeeds or fails. Must not be called again after it has returned.
    ///
    /// Cancel safe.
    pub(crate) async fn outcome(&mut self) -> Result<AgentConnection, ConnectError> {
        match (&mut self.told).await {
            Ok(dialled) => Ok(Connection::new(dialled?)),
            Err(_) => Err(ConnectError::Unanswered),
        }
    }

    /// Gives the turn back, so that an unanswered dial does not delay the dials to other VMs.
    pub(crate) fn yield_turn(&mut self) {
        self.turn = None;
    }
}

/// Connects to the socket and performs the handshake.
///
/// Not cancel safe, and cancelling it can harm the VMM: see [`initiate`].
async fn handshaked(
    socket: &VmSocket,
    port: AgentPort,
    listener: &watch::Sender<Option<Listener>>,
) -> Result<UnixStream, ConnectError> {
    let failed = |source| ConnectError::Dial { port, source };
    let mut stream = connect(&socket.path, ABANDON_AFTER).await.map_err(failed)?;
    // A socket that has the name now also had it when we connected, if it is still the expected one.
    if SocketId::at(&socket.path).is_ok_and(|id| id != socket.id) {
        return Err(ConnectError::Replaced);
    }
    let credentials = stream.peer_cred().ok();
    let pid = credentials.and_then(|credentials| u32::try_from(credentials.pid()?).ok());
    let pid = pid.filter(|pid| *pid != 0);
    listener.send_replace(Some(Listener { socket: socket.id, pid }));
    let granted = initiate(&mut stream, port.get(), ABANDON_AFTER).await;
    granted.map_err(|error| failed(DialError::Handshake(error)))?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
