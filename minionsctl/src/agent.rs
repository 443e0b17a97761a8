//! Calls to one agent over its socket, without minionsd.

use crate::agent_address::AgentAddress;
use crate::failure::Failure;
use minions_proto::connection::{Connection, ExchangeError, ProtocolError};
use minions_proto::hybrid::dial;
use minions_proto::message::{Feature, HealthCheck, ReplyError, decode_reply, encode_request};
use minions_proto::{AgentPort, Call};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Deadline for connecting. Longer than the 2 s after which VMMs give up on a guest that does not accept.
const DIAL_DEADLINE: Duration = Duration::from_secs(3);

/// Success reply of an agent, parsed and as received.
#[derive(Debug)]
pub(crate) struct AgentAnswer<T> {
    /// The reply, as far as this version knows its fields.
    pub(crate) reply: T,
    /// The whole reply, including fields that this version does not know.
    pub(crate) json: serde_json::Value,
}

/// Connects to the agent at `address`.
pub(crate) async fn connect(address: &AgentAddress) -> Result<UnixStream, Failure> {
    dial(&address.socket, address.port.get(), DIAL_DEADLINE)
        .await
        .map_err(|source| Failure::Dial { address: address.clone(), source })
}

/// Returns the failure of an exchange on a new connection to `port`: [`Failure::NotAnAgent`] if another service has
/// answered.
pub(crate) fn failed<S: AsyncRead + AsyncWrite + Unpin>(
    port: AgentPort,
    connection: &Connection<S>,
    error: ExchangeError,
) -> Failure {
    match connection.foreign_service() {
        Some(service) => Failure::NotAnAgent { port, service },
        None => error.into(),
    }
}

/// Connects, and makes one call with the deadline `patience`.
pub(crate) async fn call<C: Call>(
    address: &AgentAddress,
    call: &C,
    patience: Duration,
) -> Result<AgentAnswer<C::Reply>, Failure> {
    let stream = connect(address).await?;
    let request = encode_request(call).map_err(ExchangeError::from)?;
    let mut connection = Connection::new(stream);
    let exchanged = connection.exchange(&request, Instant::now() + patience).await;
    let decoded = exchanged.and_then(|payload| {
        let reply = decode_reply(&payload).map_err(reply_error)?;
        let json = decode_reply(&payload).map_err(reply_error)?;
        Ok(AgentAnswer { reply, json })
    });
    decoded.map_err(|error| failed(address.port, &connection, error))
}

/// Asks the agent whether it supports the second version of the network operations. A restricted agent does not
/// announce features that it may not use; it counts as supporting them, because its replies say what it refuses.
pub(crate) async fn has_network(
    address: &AgentAddress,
    patience: Duration,
) -> Result<bool, Failure> {
    let health = call(address, &HealthCheck {}, patience).await?.reply;
    Ok(health
        .agent
        .is_some_and(|agent| agent.allowed.is_some() || agent.supports(Feature::Network)))
}

/// Converts an error reply or a malformed one to the error of the exchange.
fn reply_error(error: ReplyError) -> ExchangeError {
    match error {
        ReplyError::Agent(error) => ExchangeError::Agent(error),
        malformed => ProtocolError::Reply(malformed).into(),
    }
}
