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
use std::mem;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until};

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
            // First, so that the keeper of a VM that has ended does not replace the socket of its successor.
            biased;
            () = self.announced.closed() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut logged = None;
        loop {
            match self.listen() {
                Ok((socket, _descriptor)) => {
                    self.serve(&socket).await;
                    tracing::debug!(vm = %self.vm, "the socket for announcements was removed");
                    logged = None;
                    continue;
                }
                Err(error) if logged == Some(mem::discriminant(&error)) => {
                    tracing::trace!(vm = %self.vm, %error, "no listener for announcements")
                }
                Err(error) => {
                    error.log(&self.vm);
                    logged = Some(mem::discriminant(&error));
                }
            }
            sleep(RETRY).await;
        }
    }

    fn listen(&self) -> Result<(AnnounceSocket, OwnedSemaphorePermit), AnnounceBindError> {
        let descriptor =
            self.descriptors.take_for_listener().ok_or(AnnounceBindError::NoDescriptor)?;
        let socket = AnnounceSocket::bind(&self.vm, &self.vm_socket, &self.trusted)?;
        Ok((socket, descriptor))
    }

    /// Accepts all connections at once, because a VMM may block while the backlog is full, and reads one message of
    /// each, within the bounds. Returns when the socket's file is gone, or another one has its name.
    async fn serve(&self, socket: &AnnounceSocket) {
        let mut rate = AnnounceRate::default();
        let mut reading = FuturesUnordered::new();
        let mut look_at = Instant::now() + RETRY;
        loop {
            tokio::select! {
                () = sleep_until(look_at) => {
                    if !socket.is_in_place() {
                        return;
                    }
                    look_at = Instant::now() + RETRY;
                }
                accepted = socket.accept() => match accepted {
                    Ok(stream) if reading.len() < MAX_CONNECTIONS && socket.may_announce(&stream) => {
                        if let Some(descriptor) = self.descriptors.take_spare() {
                            reading.push(read(stream, descriptor));
                        }
                    }
                    Ok(_closed) => {
                        tracing::debug!(vm = %self.vm, "a connection was closed: another user, or too many");
                    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[tokio::test(start_paused = true)]
    async fn a_socket_whose_file_is_removed_is_created_again() {
        let dir = tempfile::tempdir().unwrap();
        let vm_socket = dir.path().join("web-1.vsock");
        let _vmm = UnixListener::bind(&vm_socket).unwrap();
        let (announced, receiver) = watch::channel(None);
        let config = crate::config::Config::parse("").unwrap();
        let keeper = AnnounceKeeper {
            vm: "web-1".parse().unwrap(),
            vm_socket,
            trusted: TrustedOwners::of(&config),
            descriptors: Descriptors::of_process(),
            announced,
        };
        let kept = tokio::spawn(keeper.run());
        let file = dir.path().join("web-1.vsock_1025");
        sleep(Duration::from_secs(1)).await;
        std::fs::remove_file(&file).unwrap();
        sleep(2 * RETRY).await;
        assert!(file.exists(), "the file was not created again");
        drop(receiver);
        kept.await.unwrap();
        assert!(!file.exists());
    }
}
