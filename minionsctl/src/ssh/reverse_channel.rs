//! Connections in the guest that are handed to the SSH client, each on a channel that this server opens.

use super::channel_output::ChannelOutput;
use super::connection;
use super::input::ChannelInput;
use super::input_budget::{InputBudget, TOO_MUCH_INPUT};
use crate::guest_listener::{ConnectionServer, PendingConnection};
use crate::guest_relay;
use crate::output::{failure_line, to_stderr};
use crate::target::Target;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, Error};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Deadline for the client to open a channel. Shorter than the time for which a connection waits in the guest.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);

/// Time for the guest to close a connection whose directions have both ended.
const LAST_MESSAGES: Duration = Duration::from_secs(5);

/// Buffer of each direction between the channel and the connection in the guest, in bytes.
const BUFFER: usize = 64 * 1024;

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
        let Some(channel) = self.clone().open_in_time(connection.waiting().peer).await else {
            return connection.refuse().await;
        };
        let (reader, writer) = channel.split();
        let output = ChannelOutput::new(writer, self.session.clone());
        let input = ChannelInput::new(Arc::clone(&self.budget));
        tokio::join!(feed(reader, &input, &self.budget), async {
            self.relay(&connection, &input, &output).await;
            // An error means that the client has left.
            let _ = output.close().await;
            input.close();
        });
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

    /// Takes the connection, and moves bytes until both directions have ended or a side fails. The bytes pass through
    /// channel messages of minionsd, so that neither side takes a connection that failed for a complete one.
    async fn relay(
        &self,
        connection: &PendingConnection,
        input: &ChannelInput,
        output: &ChannelOutput,
    ) {
        let Target::Vm(client, vm) = &*self.target else { return connection.refuse().await };
        let request = connection.request();
        // Both ends live longer than the futures: the end of one future must not look like the end of the data.
        let (mut near, mut far) = tokio::io::duplex(BUFFER);
        let mut guest = pin!(guest_relay::relay(client, vm, &request, &mut far));
        let mut channel = pin!(connection::relay(input, output, &mut near));
        tokio::select! {
            relayed = &mut guest => match relayed {
                // The client may not have all of the data yet.
                Ok(true) => _ = channel.await,
                Ok(false) => {}
                Err(failure) => {
                    self.report(failure_line(&failure));
                    // Otherwise the program in the guest would wait until the agent's deadline.
                    connection.refuse().await;
                }
            },
            // The end of the client's data is sent to the guest, which then closes the connection.
            complete = &mut channel => if complete {
                let _ = timeout(LAST_MESSAGES, guest).await;
            },
        }
    }

    /// Opens a channel to the client. Returns `None` if the client refuses it, which it reports itself, or does not answer
    /// in time. A channel that is opened later is closed.
    async fn open_in_time(self, peer: Option<SocketAddr>) -> Option<Channel<Msg>> {
        let mut opening = tokio::spawn(async move { self.open(peer).await });
        match timeout(OPEN_DEADLINE, &mut opening).await {
            Ok(opened) => opened.ok()?.ok(),
            Err(_) => {
                tokio::spawn(async move {
                    if let Ok(Ok(late)) = opening.await {
                        let _ = late.close().await;
                    }
                });
                None
            }
        }
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
