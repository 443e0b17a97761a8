//! Failures of probes, as the reasons that the API shows.

use super::guest_text::clipped;
use crate::agent::socket::is_no_room;
use crate::agent::{ConnectError, Connector};
use minions_api::vm::Failure;
use minions_proto::AgentPort;
use minions_proto::connection::ExchangeError;
use minions_proto::foreign_service::ForeignService;

/// A failed probe.
#[derive(Debug)]
pub(super) struct ProbeError {
    pub(super) failure: Failure,
    pub(super) message: String,
}

impl ProbeError {
    /// Creates the error for a failed dial.
    pub(super) fn of_dial(error: &ConnectError, connector: &Connector) -> Self {
        let (failure, message) = connector.describe(error);
        Self { failure, message }
    }

    /// Creates the error for another service on the agent's port.
    pub(super) fn of_foreign_service(port: AgentPort, service: &ForeignService) -> Self {
        let message = format!(
            "another service answers on port {port} in the guest (it looks like {service}): its bytes violate the \
             protocol"
        );
        Self { failure: Failure::ProtocolError, message }
    }

    /// Creates the error for a failed exchange with the agent on this port.
    pub(super) fn of_exchange(port: AgentPort, error: ExchangeError) -> Self {
        let (failure, message) = match error {
            ExchangeError::Lost { source, .. } if is_no_room(&source) => (
                Failure::DaemonExhausted,
                "the answer to a health check is too long for the memory that minionsd has left".to_owned(),
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
                    "the answer on port {port} in the guest violates the protocol: {error}"
                );
                (Failure::ProtocolError, message)
            }
            ExchangeError::Agent(error) => {
                let detail = clipped(error.message);
                let message = format!("the agent answered a health check with an error: {detail}");
                (Failure::AgentError, message)
            }
            // A health check is 23 bytes long.
            ExchangeError::Encode(error) => (Failure::ProtocolError, error.to_string()),
        };
        Self { failure, message }
    }
}
