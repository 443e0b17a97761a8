//! One agent over its socket, without a daemon.

use crate::failure::Failure;
use minions_proto::connection::{Connection, ExchangeError, ProtocolError};
use minions_proto::hybrid::dial;
use minions_proto::message::{ReplyError, decode_reply, encode_request};
use minions_proto::{AgentPort, Call};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// VMMs give up on a guest that doesn't accept after 2 s themselves.
const DIAL_DEADLINE: Duration = Duration::from_secs(3);

/// The place of an agent that is reached without a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentAddress {
    /// The VM's socket on this host.
    pub(crate) socket: PathBuf,
    /// The agent's port in the guest.
    pub(crate) port: AgentPort,
}

/// The options of minionsctl that name it.
impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--socket {}", self.socket.display())?;
        if self.port == AgentPort::DEFAULT { Ok(()) } else { write!(f, " --port {}", self.port) }
    }
}

/// An agent's success reply: what it means, and what it said.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    /// As this version understands it.
    pub(crate) reply: T,
    /// All of it, fields included that this version doesn't know.
    pub(crate) json: serde_json::Value,
}

/// Connects to the agent at `address`.
pub(crate) async fn connect(address: &AgentAddress) -> Result<UnixStream, Failure> {
    dial(&address.socket, address.port.get(), DIAL_DEADLINE)
        .await
        .map_err(|source| Failure::Dial { address: address.clone(), source })
}

/// The reason of a failed exchange on a new connection to `port`: a service that is not an agent, if one
/// answered.
pub(crate) fn failed<S: AsyncRead + AsyncWrite + Unpin>(
    port: AgentPort,
    connection: &Connection<S>,
    error: ExchangeError,
) -> Failure {
    match connection.stranger() {
        Some(stranger) => Failure::NotAnAgent { port, stranger },
        None => error.into(),
    }
}

/// Connects and makes one call.
pub(crate) async fn call<C: Call>(
    address: &AgentAddress,
    call: &C,
    patience: Duration,
) -> Result<Answer<C::Reply>, Failure> {
    let stream = connect(address).await?;
    let request = encode_request(call).map_err(ExchangeError::from)?;
    let mut connection = Connection::new(stream);
    let exchanged = connection.exchange(&request, Instant::now() + patience).await;
    let decoded = exchanged.and_then(|payload| {
        let reply = decode_reply(&payload).map_err(reply_error)?;
        let json = decode_reply(&payload).map_err(reply_error)?;
        Ok(Answer { reply, json })
    });
    decoded.map_err(|error| failed(address.port, &connection, error))
}

/// What a reply that is none means to a caller.
fn reply_error(error: ReplyError) -> ExchangeError {
    match error {
        ReplyError::Agent(error) => ExchangeError::Agent(error),
        malformed => ProtocolError::Reply(malformed).into(),
    }
}
