//! `GET /vms/{vm}/forward/listen`: the messages of a listener in a guest.

use super::daemon_client::{DaemonClient, vm_path};
use super::upgrade::TARGET_DEADLINE;
use crate::failure::Failure;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use minions_api::VmName;
use minions_api::forward::{
    CloseReason, ForwardAddress, ListenerCommand, ListenerId, ListenerMessage, WaitingConnection,
};
use reqwest::Upgraded;
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Longest message of minionsd, in bytes. An error has at most 4 KiB of text.
const MAX_MESSAGE: usize = 64 * 1024;

/// Number of bytes that are read from the daemon at a time: several usual messages.
const READ_BUFFER: usize = 4096;

/// Silence after which the listener counts as lost: four heartbeats.
const SILENCE: Duration = Duration::from_secs(20);

type ListenerSocket = WebSocketStream<Upgraded>;

/// Reason why a listener in a guest was lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenerLoss {
    /// The agent closed the listener.
    #[error("the agent closed the listener ({0})")]
    Closed(String),
    /// The connection to minionsd or to the agent broke.
    #[error("lost the connection to the agent")]
    Broken,
    /// Neither a connection nor a heartbeat was reported in time.
    #[error("minionsd stopped responding")]
    Silent,
    /// A message has another form than those of minionsd.
    #[error("unexpected message of minionsd")]
    Malformed,
}

/// Receiving side of a listener.
#[derive(Debug)]
pub(crate) struct ListenerLink {
    /// Id of the listener.
    pub(crate) listener: ListenerId,
    /// Address on which the agent listens, with the chosen port or path.
    pub(crate) address: ForwardAddress,
    messages: SplitStream<ListenerSocket>,
}

/// Sending side of a listener. Dropping both sides closes the listener.
#[derive(Debug)]
pub(crate) struct ListenerCommands(SplitSink<ListenerSocket, Message>);

impl DaemonClient {
    /// Listens in a guest.
    pub(crate) async fn listen(
        &self,
        vm: &VmName,
        address: &ForwardAddress,
        owner: Option<&str>,
    ) -> Result<(ListenerLink, ListenerCommands), Failure> {
        let address = address.to_string();
        let mut query = vec![("address", address.as_str())];
        query.extend(owner.map(|owner| ("owner", owner)));
        let url = self.url(&vm_path(vm, "/forward/listen"), &query)?;
        let upgraded = self.websocket(url, TARGET_DEADLINE).await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .read_buffer_size(READ_BUFFER);
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        let (commands, mut messages) = socket.split();
        match timeout(SILENCE, next(&mut messages)).await {
            Ok(Ok(ListenerMessage::Listening { listener, address })) => {
                let link = ListenerLink { listener, address, messages };
                Ok((link, ListenerCommands(commands)))
            }
            Ok(Ok(_) | Err(_)) => Err(self.broke_off()),
            Err(_) => Err(Failure::Silent { host: self.host.clone() }),
        }
    }
}

impl ListenerLink {
    /// Waits for the next connection. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<WaitingConnection, ListenerLoss> {
        let mut failure = None;
        loop {
            let message = timeout(SILENCE, next(&mut self.messages)).await;
            match message.map_err(|_| ListenerLoss::Silent)?? {
                ListenerMessage::Connection(waiting) => return Ok(waiting),
                ListenerMessage::Error { message } => failure = Some(message),
                ListenerMessage::Closed { reason } => {
                    return Err(ListenerLoss::Closed(failure.unwrap_or_else(|| named(reason))));
                }
                ListenerMessage::Heartbeat
                | ListenerMessage::Listening { .. }
                | ListenerMessage::Unknown => {}
            }
        }
    }
}

impl ListenerCommands {
    /// Resets a connection that waits. A failure is that of the listener, which [`ListenerLink::next`] reports.
    pub(crate) async fn refuse(&mut self, connection: u64) {
        let command = ListenerCommand::Refuse { connection };
        if let Ok(text) = serde_json::to_string(&command) {
            let _ = self.0.send(Message::text(text)).await;
        }
    }
}

/// Returns the next message. Cancel safe.
async fn next(messages: &mut SplitStream<ListenerSocket>) -> Result<ListenerMessage, ListenerLoss> {
    loop {
        return match messages.next().await {
            Some(Ok(Message::Text(text))) => {
                serde_json::from_str(&text).map_err(|_| ListenerLoss::Malformed)
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => Err(ListenerLoss::Malformed),
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(ListenerLoss::Broken),
        };
    }
}

fn named(reason: CloseReason) -> String {
    let name = match reason {
        CloseReason::Ended => "ended",
        CloseReason::Reset => "reset",
        CloseReason::Left => "left",
        CloseReason::HostSilent => "host silent",
        CloseReason::Protocol => "protocol",
        CloseReason::Other => "other",
    };
    name.to_owned()
}
