//! Calls to one agent over its socket, without minionsd.

use crate::failure::Failure;
use minions_proto::Call;
use minions_proto::connection::{Connection, ExchangeError, ProtocolError};
use minions_proto::hybrid::dial;
use minions_proto::message::{
    HealthCheck, NETWORK_FEATURE, ReplyError, decode_reply, encode_request,
};
use minions_proto::version::AGENT_PORT;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Deadline for connecting. Longer than the 2 s after which VMMs give up on a guest that does not accept.
const DIAL_DEADLINE: Duration = Duration::from_secs(3);

/// Success reply of an agent, parsed and as received.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    /// The reply, as far as this version knows its fields.
    pub(crate) reply: T,
    /// The whole reply, including fields that this version does not know.
    pub(crate) json: serde_json::Value,
}

/// Connects to the agent through `socket`.
pub(crate) async fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    dial(socket, AGENT_PORT, DIAL_DEADLINE)
        .await
        .map_err(|source| Failure::Dial { path: socket.to_owned(), source })
}

/// Connects, and makes one call with the deadline `patience`.
pub(crate) async fn call<C: Call>(
    socket: &Path,
    call: &C,
    patience: Duration,
) -> Result<Answer<C::Reply>, Failure> {
    let stream = connect(socket).await?;
    let request = encode_request(call).map_err(ExchangeError::from)?;
    let mut connection = Connection::new(stream);
    let payload = connection.exchange(&request, Instant::now() + patience).await?;
    let reply = decode_reply(&payload).map_err(reply_error)?;
    let json = decode_reply(&payload).map_err(reply_error)?;
    Ok(Answer { reply, json })
}

/// Asks the agent whether it supports the second version of the network operations. A restricted agent does not
/// announce features that it may not use; it counts as supporting them, because its replies say what it refuses.
pub(crate) async fn has_network(socket: &Path, patience: Duration) -> Result<bool, Failure> {
    let health = call(socket, &HealthCheck {}, patience).await?.reply;
    Ok(health.agent.is_some_and(|agent| agent.allowed.is_some() || agent.supports(NETWORK_FEATURE)))
}

/// Converts an error reply or a malformed one to the error of the exchange.
fn reply_error(error: ReplyError) -> ExchangeError {
    match error {
        ReplyError::Agent(error) => ExchangeError::Agent(error),
        malformed => ProtocolError::Reply(malformed).into(),
    }
}
