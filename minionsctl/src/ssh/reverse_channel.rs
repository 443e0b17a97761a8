//! Connections in the guest that are handed to the SSH client, each on a channel that this server opens.

use super::channel_output::ChannelOutput;
use super::connection;
use super::input::ChannelInput;
use super::input_budget::{InputBudget, TOO_MUCH_INPUT};
use crate::guest_listener::{ConnectionServer, PendingConnection};
use crate::output::{failure_line, to_stderr};
use crate::target::Target;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, Error};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Deadline for the client to open a channel. Shorter than the time for which a connection waits in the guest.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);

/// Kind of the channels of a listener.
#[derive(Debug, Clone)]
pub(super) enum ChannelKind {
    /// Connection to a TCP port (`forwarded-tcpip`), by the client's name for it.
    Tcp {
        /// Address as the client wrote it.
        host: String,
        /// Port; the chosen one if the client asked for port 0.
        port: u32,
    },
    /// Connection to a Unix socket (`forwarded-streamlocal@openssh.com`).
    Unix {
        /// Path as the client wrote it.
        path: String,
    },
    /// Connection to the client's SSH agent (`auth-agent@openssh.com`).
    Agent,
}

/// Service of the connections of one listener.
#[derive(Clone)]
pub(super) struct ReverseChannels {
    target: Arc<Target>,
    budget: Arc<InputBudget>,
    kind: ChannelKind,
    session: Handle,
}

impl ConnectionServer for ReverseChannels {
    async fn serve(self, connection: PendingConnection) {
        let Target::Vm(client, vm) = &*self.target else { return connection.refuse().await };
        let opened = timeout(OPEN_DEADLINE, self.open(connection.waiting().peer)).await;
        // An error means that the client refused the channel, which it reports itself, or has left.
        let Ok(Ok(channel)) = opened else { return connection.refuse().await };
        let (reader, writer) = channel.split();
        let output = ChannelOutput::new(writer, self.session.clone());
        match client.connect(vm, &connection.request()).await {
            Ok(guest) => {
                let input = ChannelInput::new(Arc::clone(&self.budget));
                tokio::join!(feed(reader, &input, &self.budget), async {
                    connection::relay(&input, &output, guest).await;
                    input.close();
                });
            }
            Err(failure) => {
                self.report(failure_line(&failure));
                // An error means that the client has left.
                let _ = output.close().await;
            }
        }
    }

    fn report(&self, message: String) {
        to_stderr(&format!("minionsctl: {message}"));
    }
}

impl ReverseChannels {
    pub(super) fn new(
        target: Arc<Target>,
        budget: Arc<InputBudget>,
        kind: ChannelKind,
        session: Handle,
    ) -> Self {
        Self { target, budget, kind, session }
    }

    /// Opens a channel to the client.
    async fn open(&self, peer: Option<SocketAddr>) -> Result<Channel<Msg>, Error> {
        match &self.kind {
            ChannelKind::Tcp { host, port } => {
                let unknown = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
                let peer = peer.unwrap_or(unknown);
                let (ip, from) = (peer.ip().to_string(), peer.port().into());
                self.session.channel_open_forwarded_tcpip(host, *port, ip, from).await
            }
            ChannelKind::Unix { path } => {
                self.session.channel_open_forwarded_streamlocal(path).await
            }
            ChannelKind::Agent => self.session.channel_open_agent().await,
        }
    }
}

/// Moves the client's messages to `input`, without waiting for the guest: the queue of the library is short, and the
/// connection would stop while it is full. Returns when the channel or `input` is closed.
///
/// Messages of a channel that this server opens are read here and not by the handler, which would miss those that
/// arrive before it knows of the channel.
async fn feed(mut reader: ChannelReadHalf, input: &ChannelInput, budget: &InputBudget) {
    while !input.is_closed() {
        match reader.wait().await {
            Some(ChannelMsg::Data { data }) => {
                input.push(&data);
                if budget.is_exceeded() {
                    to_stderr(&format!("minionsctl: {TOO_MUCH_INPUT}"));
                    break;
                }
            }
            Some(ChannelMsg::Eof) => input.end(),
            Some(ChannelMsg::Close) => return input.close_after_end(),
            Some(_) => {}
            None => break,
        }
    }
    input.close();
}
