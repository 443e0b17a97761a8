//! Why a probe failed.

use super::status::clipped;
use crate::agent::ConnectError;
use crate::agent::socket::is_no_room;
use minions_api::vm::Failure;
use minions_proto::AgentPort;
use minions_proto::connection::ExchangeError;
use minions_proto::stranger::Stranger;

/// A failed probe.
#[derive(Debug)]
pub(super) struct ProbeError {
    pub(super) failure: Failure,
    pub(super) message: String,
}

impl ProbeError {
    /// There is no connection.
    pub(super) fn of_dial(error: &ConnectError) -> Self {
        Self { failure: error.failure(), message: error.message() }
    }

    /// A service that is not an agent listens on the agent's port.
    pub(super) fn of_stranger(port: AgentPort, stranger: &Stranger) -> Self {
        let message = format!(
            "something else answers on port {port} in the guest (it looks like {stranger}); what it says is not \
             the protocol"
        );
        Self { failure: Failure::ProtocolError, message }
    }

    /// There is no answer from the agent on this port.
    pub(super) fn of_exchange(port: AgentPort, error: ExchangeError) -> Self {
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
                let message = format!(
                    "what answers on port {port} in the guest does not speak the protocol: {error}"
                );
                (Failure::ProtocolError, message)
            }
            ExchangeError::Agent(error) => {
                let said = clipped(error.message);
                let message = format!("the agent answers a health check with an error: {said}");
                (Failure::AgentError, message)
            }
            // A health check is 23 bytes long.
            ExchangeError::Encode(error) => (Failure::ProtocolError, error.to_string()),
        };
        Self { failure, message }
    }
}
