//! Task that holds the listener of one VM.

use super::ReceivedAnnouncement;
use super::message::{self, MessageError};
use super::rate::AnnounceRate;
use super::socket_file::{AnnounceBindError, AnnounceSocket};
use crate::descriptors::Descriptors;
use crate::vm::socket_dir::TrustedOwners;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use minions_api::{Timestamp, VmName};
use minions_proto::announcement::Announcement;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep};

/// Pause before the next attempt to create the listener.
const RETRY: Duration = Duration::from_mins(1);

/// Pause after a failed accept: the process or the machine lacks descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections of one VM whose message is awaited at the same time. Others are closed at once.
const MAX_CONNECTIONS: usize = 4;

/// Holder of the listener. Ends when the receiver of its announcements is dropped; the socket file is removed then.
#[derive(Debug)]
pub(in crate::vm) struct AnnounceKeeper {
    pub(in crate::vm) vm: VmName,
    /// Path of the VM's own socket.
    pub(in crate::vm) vm_socket: PathBuf,
    pub(in crate::vm) trusted: TrustedOwners,
    pub(in crate::vm) descriptors: Descriptors,
    pub(in crate::vm) announced: watch::Sender<Option<ReceivedAnnouncement>>,
}

impl AnnounceKeeper {
    /// Holds the listener until the receiver of the announcements is dropped.
    pub(in crate::vm) async fn run(self) {
        tokio::select! {
            () = self.announced.closed() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut is_logged = false;
        loop {
            match self.listen() {
                Ok((socket, _descriptor)) => return self.serve(&socket).await,
                Err(error) if is_logged => {
                    tracing::trace!(vm = %self.vm, %error, "no listener for announcements")
                }
                Err(error) => {
                    is_logged = true;
                    error.log(&self.vm);
                }
            }
            sleep(RETRY).await;
        }
    }

    fn listen(&self) -> Result<(AnnounceSocket, OwnedSemaphorePermit), AnnounceBindError> {
        let descriptor =
            self.descriptors.take_for_listener().ok_or(AnnounceBindError::NoDescriptor)?;
        let socket = AnnounceSocket::bind(&self.vm_socket, &self.trusted)?;
        Ok((socket, descriptor))
    }

    /// Accepts all connections at once, because a VMM may block while the backlog is full, and reads one message of
    /// each, within the bounds.
    async fn serve(&self, socket: &AnnounceSocket) {
        let mut rate = AnnounceRate::default();
        let mut reading = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok(stream) if reading.len() < MAX_CONNECTIONS && socket.may_announce(&stream) => {
                        if let Some(descriptor) = self.descriptors.take_spare() {
                            reading.push(read(stream, descriptor));
                        }
                    }
                    Ok(_closed) => {}
                    Err(error) => {
                        tracing::debug!(vm = %self.vm, %error, "cannot accept an announcement");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(received) = reading.next() => match received {
                    Ok(announcement) => self.received(announcement, &mut rate),
                    Err(error) => tracing::debug!(vm = %self.vm, %error, "no announcement"),
                },
            }
        }
    }

    fn received(&self, announcement: Announcement, rate: &mut AnnounceRate) {
        if !rate.permits(Instant::now()) {
            return;
        }
        tracing::debug!(vm = %self.vm, port = %announcement.port, "the agent has announced itself");
        self.announced
            .send_replace(Some(ReceivedAnnouncement { at: Timestamp::now(), announcement }));
    }
}

/// Reads the message, then closes the connection.
async fn read(
    stream: UnixStream,
    _descriptor: OwnedSemaphorePermit,
) -> Result<Announcement, MessageError> {
    message::read(stream).await
}
