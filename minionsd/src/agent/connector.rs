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
use tokio::sync::Semaphore;

/// A handshaked connection to an agent.
pub(crate) type AgentConnection = Connection<UnixStream>;

/// From `connect(2)` to `OK`. VMMs give up on a guest that doesn't accept after 2 s themselves.
const DIAL_DEADLINE: Duration = Duration::from_secs(2);

/// Dials in flight over all VMs: when a thousand sockets appear at once, they take turns.
#[derive(Debug, Clone)]
pub(crate) struct DialLimit(Arc<Semaphore>);

impl DialLimit {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(limit)))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("no connection to the agent")]
pub(crate) struct ConnectError {
    #[from]
    source: DialError,
}

impl ConnectError {
    /// The layer that failed.
    pub(crate) fn failure(&self) -> Failure {
        match &self.source {
            DialError::NoSocket(_) => Failure::NoSocket,
            DialError::NoListener(_) => Failure::NoListener,
            DialError::Connect(_) | DialError::NotAccepted(_) => Failure::ConnectFailed,
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
        match &self.source {
            DialError::NoSocket(_) => "the socket file vanished".into(),
            DialError::NoListener(_) => {
                "nobody listens on the socket: the VMM is not running".into()
            }
            DialError::Connect(error) => format!("the socket can't be connected: {error}"),
            DialError::NotAccepted(_) => {
                "the VMM doesn't accept connections: it hangs, or too many wait".into()
            }
            DialError::Handshake(error) => match error {
                HandshakeError::Refused => {
                    "the VMM closed after CONNECT: no agent listens in the guest (yet)".into()
                }
                HandshakeError::TimedOut(_) => {
                    "the VMM did not answer CONNECT: the guest or the VMM hangs".into()
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
    limit: DialLimit,
}

impl Connector {
    pub(crate) fn new(socket: PathBuf, limit: DialLimit) -> Self {
        Self { socket, limit }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A new connection. Takes at most its turn among the dials plus [`DIAL_DEADLINE`].
    ///
    /// Cancel safe: some VMMs crash when a client leaves in the middle of CONNECT, so a dial runs
    /// in a task of its own and is finished there, whoever has stopped waiting for it.
    pub(crate) async fn connect(&self) -> Result<AgentConnection, ConnectError> {
        let turn = Arc::clone(&self.limit.0).acquire_owned().await;
        let socket = self.socket.clone();
        let dialled = tokio::spawn(async move {
            let _turn = turn;
            dial(&socket, AGENT_PORT, DIAL_DEADLINE).await
        });
        match dialled.await {
            Ok(stream) => Ok(Connection::new(stream?)),
            // The task neither panics nor is aborted while the runtime lives; if it is all the
            // same, the dial did not succeed.
            Err(_) => Err(DialError::NotAccepted(DIAL_DEADLINE).into()),
        }
    }
}
