//! One agent over its socket, without a daemon.

use crate::failure::Failure;
use minions_proto::Call;
use minions_proto::connection::{Connection, ExchangeError, ProtocolError};
use minions_proto::hybrid::dial;
use minions_proto::message::{ReplyError, decode_reply, encode_request};
use minions_proto::version::AGENT_PORT;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// VMMs give up on a guest that doesn't accept after 2 s themselves.
const DIAL_DEADLINE: Duration = Duration::from_secs(3);

/// An agent's success reply: what it means, and what it said.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    /// As this version understands it.
    pub(crate) reply: T,
    /// All of it, fields included that this version doesn't know.
    pub(crate) json: serde_json::Value,
}

/// Connects to the agent behind `socket`.
pub(crate) async fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    dial(socket, AGENT_PORT, DIAL_DEADLINE)
        .await
        .map_err(|source| Failure::Dial { path: socket.to_owned(), source })
}

/// Connects and makes one call.
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

/// What a reply that is none means to a caller.
fn reply_error(error: ReplyError) -> ExchangeError {
    match error {
        ReplyError::Agent(error) => ExchangeError::Agent(error),
        malformed => ProtocolError::Reply(malformed).into(),
    }
}
