//! Why a probe failed.

use crate::agent::socket::is_no_room;
use crate::agent::{ConnectError, Connector};
use minions_api::vm::Failure;
use minions_proto::connection::ExchangeError;

/// A failed probe.
#[derive(Debug)]
pub(super) struct ProbeError {
    pub(super) failure: Failure,
    pub(super) message: String,
}

impl ProbeError {
    /// There is no connection.
    pub(super) fn of_dial(error: &ConnectError, connector: &Connector) -> Self {
        let (failure, message) = connector.describe(error);
        Self { failure, message }
    }

    /// There is no answer.
    pub(super) fn of_exchange(error: ExchangeError) -> Self {
        let (failure, message) = match error {
            ExchangeError::Lost { source, .. } if is_no_room(&source) => (
                Failure::DaemonExhausted,
                "minionsd has no memory for such a long answer to a health check".to_owned(),
            ),
            ExchangeError::Lost { .. } => {
                (Failure::AgentClosed, "the agent closed the connection".to_owned())
            }
            ExchangeError::TimedOut => (
                Failure::AgentSilent,
                "the agent did not answer a health check within 1 s: the guest is paused, starved or hangs"
                    .to_owned(),
            ),
            ExchangeError::Protocol(error) => {
                (Failure::ProtocolError, format!("the agent's answer violates the protocol: {error}"))
            }
            ExchangeError::Agent(_) => {
                (Failure::AgentError, "the agent answers a health check with an error".to_owned())
            }
            // A health check is 23 bytes long.
            ExchangeError::Encode(error) => (Failure::ProtocolError, error.to_string()),
        };
        Self { failure, message }
    }
}
