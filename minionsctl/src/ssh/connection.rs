//! A connection to a TCP port or Unix socket in the guest, on a channel (`ssh -L`, `-W`, `-D`).

use super::channel_output::ChannelOutput;
use super::input::{ChannelInput, InputEvent};
use crate::client::ConnectionRequest;
use crate::failure::Failure;
use crate::output::{failure_line, to_stderr};
use crate::target::Target;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use minions_proto::channel::OutputStream;
use minions_proto::message::ForwardTarget;
use reqwest::Upgraded;
use russh::ChannelOpenFailure;
use russh::server::ChannelOpenHandle;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

/// Buffer of each direction, in bytes: the largest packet of the protocol.
const BUFFER: usize = 32 * 1024;

/// Connection on a channel.
#[derive(Debug)]
pub(super) struct ChannelConnection {
    target: Arc<Target>,
    destination: ForwardTarget,
    input: Arc<ChannelInput>,
    output: ChannelOutput,
}

impl ChannelConnection {
    pub(super) fn new(
        target: Arc<Target>,
        destination: ForwardTarget,
        input: Arc<ChannelInput>,
        output: ChannelOutput,
    ) -> Self {
        Self { target, destination, input, output }
    }

    /// Connects, answers the request for the channel, and moves bytes until both directions have ended.
    pub(super) async fn run(self, reply: ChannelOpenHandle) {
        let connected = tokio::select! {
            connected = connect(&self.target, &self.destination) => connected,
            () = self.input.closed() => return,
        };
        match connected {
            Some(Ok(guest)) => {
                reply.accept().await;
                relay(&self.input, &self.output, guest).await;
                // An error means that the client has closed its connection.
                let _ = self.output.close().await;
            }
            Some(Err(failure)) => {
                // SSH has a text for the reason, but the library sends a fixed one.
                let reason = failure_line(&failure);
                to_stderr(&format!("minionsctl: cannot connect to {}: {reason}", self.destination));
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
            }
            None => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
        }
        self.input.close();
    }
}

/// Moves bytes between a channel and a connection in the guest until both directions have ended or a side closes it.
/// Returns true if both directions have ended.
pub(super) async fn relay(
    input: &ChannelInput,
    output: &ChannelOutput,
    guest: impl AsyncRead + AsyncWrite,
) -> bool {
    let (reader, writer) = tokio::io::split(guest);
    let (ended, input_end) = oneshot::channel();
    let mut from_guest = pin!(to_client(reader, output, input_end));
    tokio::select! {
        // A client that has ended its direction may close the channel in the same moment.
        () = to_guest(input, writer, ended) => {
            from_guest.now_or_never().is_some_and(|complete| complete.is_ok())
        }
        // An error means that the guest or the client has closed the connection.
        complete = &mut from_guest => complete.is_ok(),
    }
}

/// Connects through minionsd. Returns `None` with `--socket`.
async fn connect(target: &Target, to: &ForwardTarget) -> Option<Result<Upgraded, Failure>> {
    match target {
        Target::Vm(client, vm) => {
            Some(client.connect(vm, &ConnectionRequest::Target(to.to_string())).await)
        }
        Target::Agent(_) => None,
    }
}

/// Moves bytes until the client closes the channel or a write fails. Drops `ended` at the end of the input.
async fn to_guest(
    input: &ChannelInput,
    mut guest: impl AsyncWrite + Unpin,
    ended: oneshot::Sender<()>,
) {
    loop {
        match input.next(BUFFER).await {
            InputEvent::Bytes(bytes) => tokio::select! {
                written = guest.write_all(&bytes) => if written.is_err() {
                    return;
                },
                () = input.closed() => return,
            },
            InputEvent::End => break,
            InputEvent::Closed => return,
            // These requests do not exist for a connection; they are ignored.
            InputEvent::Resized { .. } | InputEvent::Signal(_) => {}
        }
    }
    // An error means that the guest has closed the connection, which the other direction notices.
    let _ = guest.shutdown().await;
    drop(ended);
    input.closed().await;
}

/// Moves bytes until the target has ended its output, and then waits for the end of the input.
async fn to_client(
    mut guest: impl AsyncRead + Unpin,
    output: &ChannelOutput,
    input_end: oneshot::Receiver<()>,
) -> Result<(), russh::Error> {
    let mut buffer = BytesMut::with_capacity(BUFFER);
    while guest.read_buf(&mut buffer).await.map_err(russh::Error::IO)? > 0 {
        output.send(OutputStream::Stdout, Bytes::copy_from_slice(&buffer)).await?;
        buffer.clear();
    }
    output.end().await?;
    // Resolves when `to_guest` drops the sender.
    let _ = input_end.await;
    Ok(())
}
