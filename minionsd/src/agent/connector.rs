//! New connections to one agent.

use minions_api::vm::Failure;
use minions_proto::connection::Connection;
use minions_proto::handshake::HandshakeError;
use minions_proto::hybrid::{DialError, dial};
use minions_proto::version::AGENT_PORT;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// A handshaked connection to an agent.
pub(crate) type AgentConnection = Connection<UnixStream>;

/// From `connect(2)` to `OK`, for whoever waits. VMMs give up on a guest that doesn't accept after
/// 2 s themselves.
const DIAL_DEADLINE: Duration = Duration::from_secs(2);

/// The same for the dial itself, which goes on when nobody waits any more: a VMM may crash or wedge
/// when a client leaves between CONNECT and OK (vhost-device-vsock 0.3.0 does), and a guest that
/// was only paused comes back.
const ABANDON_AFTER: Duration = Duration::from_secs(120);

/// Dials to one VM that may be unanswered at once. More than a pool and the streams beside it want at
/// the same moment; a VM that answers none of them gets no further one.
const MAX_UNANSWERED: usize = 24;

/// The dials over all VMs: when a thousand sockets appear at once, they take turns. Each runs as a
/// task that the daemon's end waits for, within bounds.
#[derive(Debug, Clone)]
pub(crate) struct Dials {
    turns: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Dials {
    /// At most `limit` in flight.
    pub(crate) fn new(limit: usize, tasks: TaskTracker) -> Self {
        Self { turns: Arc::new(Semaphore::new(limit)), tasks }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// A layer said no.
    #[error("no connection to the agent")]
    Dial(#[from] DialError),
    /// No layer said anything.
    #[error("no answer to CONNECT")]
    Unanswered,
}

impl ConnectError {
    /// The layer that failed.
    pub(crate) fn failure(&self) -> Failure {
        let error = match self {
            Self::Unanswered => return Failure::NoHandshake,
            Self::Dial(error) => error,
        };
        match error {
            DialError::NoSocket(_) => Failure::NoSocket,
            DialError::NoListener(_) => Failure::NoListener,
            DialError::Connect(_) | DialError::NotAccepted => Failure::ConnectFailed,
            DialError::Handshake(error) => match error {
                HandshakeError::Refused => Failure::NoAgent,
                HandshakeError::TimedOut(_) => Failure::NoHandshake,
                HandshakeError::Truncated | HandshakeError::Line(_) => Failure::BadHandshake,
                HandshakeError::SplitWrite | HandshakeError::Io(_) => Failure::ConnectFailed,
            },
        }
    }

    /// What a person should know, and look at.
    pub(crate) fn message(&self) -> String {
        let error = match self {
            Self::Unanswered => {
                return "the VMM did not answer CONNECT: the guest or the VMM hangs".into();
            }
            Self::Dial(error) => error,
        };
        match error {
            DialError::NoSocket(_) => "the socket file vanished".into(),
            DialError::NoListener(_) => {
                "nobody listens on the socket: the VMM is not running".into()
            }
            DialError::Connect(error) => format!("the socket can't be connected: {error}"),
            DialError::NotAccepted => {
                "the VMM doesn't accept connections: it hangs, or too many wait".into()
            }
            DialError::Handshake(error) => match error {
                HandshakeError::Refused => {
                    "the VMM closed after CONNECT: no agent listens in the guest (yet)".into()
                }
                other => format!("the handshake failed: {other}"),
            },
        }
    }
}

/// Dials one VM.
#[derive(Debug)]
pub(crate) struct Connector {
    socket: PathBuf,
    dials: Dials,
    unanswered: Arc<Semaphore>,
}

impl Connector {
    pub(crate) fn new(socket: PathBuf, dials: Dials) -> Self {
        Self { socket, dials, unanswered: Arc::new(Semaphore::new(MAX_UNANSWERED)) }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A new connection. Takes at most its turn among the dials plus [`DIAL_DEADLINE`].
    ///
    /// Cancel safe: a dial runs in a task of its own and comes to its end there, whoever has stopped
    /// waiting for it. How many of them there can be is bounded.
    pub(crate) async fn connect(&self) -> Result<AgentConnection, ConnectError> {
        let place = Arc::clone(&self.unanswered)
            .try_acquire_owned()
            .map_err(|_| ConnectError::Unanswered)?;
        // Neither semaphore is ever closed.
        let _turn = self.dials.turns.acquire().await;
        let (tell, told) = oneshot::channel();
        let socket = self.socket.clone();
        self.dials.tasks.spawn(async move {
            let dialled = dial(&socket, AGENT_PORT, ABANDON_AFTER).await;
            drop(place);
            // Nobody waits any more: the connection is complete, and may be closed.
            let _ = tell.send(dialled);
        });
        match timeout(DIAL_DEADLINE, told).await {
            Ok(Ok(dialled)) => Ok(Connection::new(dialled?)),
            Ok(Err(_)) | Err(_) => Err(ConnectError::Unanswered),
        }
    }
}
