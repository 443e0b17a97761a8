//! `GET /vms/{vm}/forward/listen`: messages on its WebSocket, one JSON object in each text message.

pub use minions_proto::forward::CloseReason;
pub use minions_proto::forward_listener::WaitingConnection;
pub use minions_proto::message::{ForwardAddress, ListenerId};

use serde::{Deserialize, Serialize};

/// Message of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ListenerMessage {
    /// The agent listens. The first message.
    Listening {
        /// Id of the listener, for `GET /vms/{vm}/forward/accept`.
        listener: ListenerId,
        /// Address on which the agent listens, with the chosen port or path.
        address: ForwardAddress,
    },
    /// A connection waits for `GET /vms/{vm}/forward/accept`.
    Connection(WaitingConnection),
    /// The agent is alive.
    Heartbeat,
    /// The listener failed in the guest; `closed` follows.
    Error {
        /// Text for people, written by the guest.
        message: String,
    },
    /// The agent closed the listener. The last message.
    Closed {
        /// Reason for the end.
        reason: CloseReason,
    },
    /// A message that was added after this version.
    #[serde(other)]
    Unknown,
}

/// Message of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ListenerCommand {
    /// Resets a connection that waits.
    Refuse {
        /// Number of the connection.
        connection: u64,
    },
    /// Closes the listener.
    Leave,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_documented_json() {
        let listening = ListenerMessage::Listening {
            listener: "5f1c-09".parse().unwrap(),
            address: "tcp:127.0.0.1:8080".parse().unwrap(),
        };
        let waiting = WaitingConnection { connection: 1, peer: "127.0.0.1:40000".parse().ok() };
        for (message, json) in [
            (
                listening,
                r#"{"type":"listening","listener":"5f1c-09","address":"tcp:127.0.0.1:8080"}"#,
            ),
            (
                ListenerMessage::Connection(waiting),
                r#"{"type":"connection","connection":1,"peer":"127.0.0.1:40000"}"#,
            ),
            (ListenerMessage::Heartbeat, r#"{"type":"heartbeat"}"#),
            (
                ListenerMessage::Closed { reason: CloseReason::HostSilent },
                r#"{"type":"closed","reason":"host_silent"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&message).unwrap(), json);
            assert_eq!(serde_json::from_str::<ListenerMessage>(json).unwrap(), message);
        }
        for (command, json) in [
            (ListenerCommand::Refuse { connection: 7 }, r#"{"type":"refuse","connection":7}"#),
            (ListenerCommand::Leave, r#"{"type":"leave"}"#),
        ] {
            assert_eq!(serde_json::to_string(&command).unwrap(), json);
            assert_eq!(serde_json::from_str::<ListenerCommand>(json).unwrap(), command);
        }
        let later = r#"{"type":"from_the_future","x":1}"#;
        let later: ListenerMessage = serde_json::from_str(later).unwrap();
        assert_eq!(later, ListenerMessage::Unknown);
        assert!(serde_json::from_str::<ListenerCommand>(r#"{"type":"x"}"#).is_err());
    }
}
