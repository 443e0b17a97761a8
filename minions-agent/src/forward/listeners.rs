//! Listeners, and their connections that wait for the host.
//!
//! ```text
//!  client ─▶ kernel's queue ─▶ accept ─▶ waiting, at most 64 ─▶ forward_accept ─▶ session::forward
//!                                             └─ refused, or 30 s ─▶ reset
//! ```
//!
//! While 64 connections of a listener wait, or the limit of forwards is reached, the agent does not accept: further
//! connections stay in the kernel's queue, and then in that of their senders.

use super::bind::{BoundSocket, SocketFile};
use super::target::TargetSocket;
use crate::lock::lock;
use minions_proto::forward_listener::{ACCEPT_DEADLINE, WaitingConnection};
use minions_proto::message::{ForwardAddress, ListenerId};
use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};

/// Limit of connections of one listener that wait for the host.
const MAX_WAITING: usize = 64;

/// Limit of listeners at the same time.
pub(super) const MAX_LISTENERS: usize = 64;

/// Pause after an `accept` that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All listeners of the agent. Clones refer to the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct ListenerRegistry(Arc<Mutex<HashMap<ListenerId, WaitingQueue>>>);

/// Connections of one listener that wait for the host, by number.
type WaitingQueue = BTreeMap<u64, WaitingSocket>;

/// Connection that waits.
#[derive(Debug)]
struct WaitingSocket {
    socket: TargetSocket,
    peer: Option<SocketAddr>,
    deadline: Instant,
    slot: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

/// Connection that the host has taken, with its part of the limit of forwards.
#[derive(Debug)]
pub(super) struct TakenConnection {
    pub(super) socket: TargetSocket,
    pub(super) peer: Option<SocketAddr>,
    pub(super) slot: OwnedSemaphorePermit,
}

/// Open listener. Dropping it closes the socket, removes its file and resets the connections that wait.
#[derive(Debug)]
pub(crate) struct OpenListener {
    pub(crate) id: ListenerId,
    /// Address on which the agent listens, for the reply to the host.
    pub(crate) address: ForwardAddress,
    registry: ListenerRegistry,
    socket: ListeningSocket,
    next: u64,
    places: Arc<Semaphore>,
    forwards: Arc<Semaphore>,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

impl ListenerRegistry {
    /// Returns false if the limit of listeners is reached.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.0).len() < MAX_LISTENERS
    }

    /// Adds a listener. `forwards` is the limit of forwards, of which each connection takes a part and the listener
    /// has taken `slot`. Returns `None` if the limit of listeners is reached.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the socket.
    pub(super) fn add(
        &self,
        id: ListenerId,
        (socket, address): (BoundSocket, ForwardAddress),
        forwards: Arc<Semaphore>,
        slot: OwnedSemaphorePermit,
    ) -> io::Result<Option<OpenListener>> {
        let socket = match socket {
            BoundSocket::Tcp(socket) => ListeningSocket::Tcp(TcpListener::from_std(socket)?),
            BoundSocket::Unix(socket, file) => {
                ListeningSocket::Unix { listener: UnixListener::from_std(socket)?, _file: file }
            }
        };
        let mut listeners = lock(&self.0);
        if listeners.len() >= MAX_LISTENERS {
            return Ok(None);
        }
        listeners.insert(id.clone(), WaitingQueue::new());
        drop(listeners);
        let (registry, places) = (self.clone(), Arc::new(Semaphore::new(MAX_WAITING)));
        Ok(Some(OpenListener {
            id,
            address,
            registry,
            socket,
            next: 1,
            places,
            forwards,
            _slot: slot,
        }))
    }

    /// Takes a connection that waits; `None` if there is no such connection.
    pub(super) fn take(&self, id: &ListenerId, connection: u64) -> Option<TakenConnection> {
        let waiting = lock(&self.0).get_mut(id)?.remove(&connection)?;
        let WaitingSocket { socket, peer, slot, .. } = waiting;
        Some(TakenConnection { socket, peer, slot })
    }
}

impl OpenListener {
    /// Waits for the next connection, and resets those that the host has not taken in time.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> WaitingConnection {
        loop {
            let expiry = self.reset_expired();
            tokio::select! {
                (place, slot, socket, peer) = self.accept() => {
                    let connection = self.next;
                    self.next += 1;
                    let deadline = Instant::now() + ACCEPT_DEADLINE;
                    let waiting = WaitingSocket { socket, peer, deadline, slot, _place: place };
                    if let Some(queue) = lock(&self.registry.0).get_mut(&self.id) {
                        queue.insert(connection, waiting);
                    }
                    return WaitingConnection { connection, peer };
                }
                () = until(expiry) => {}
            }
        }
    }

    /// Resets a connection that waits, if the host has not taken it.
    pub(crate) fn refuse(&self, connection: u64) {
        if let Some(taken) = self.registry.take(&self.id, connection) {
            taken.socket.reset();
        }
    }

    /// Resets connections whose deadline has passed, and returns the next deadline.
    fn reset_expired(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut listeners = lock(&self.registry.0);
        let queue = listeners.get_mut(&self.id)?;
        // All have the same time to wait, so the oldest one is the first to expire.
        while let Some(oldest) = queue.first_entry() {
            if oldest.get().deadline > now {
                return Some(oldest.get().deadline);
            }
            oldest.remove().socket.reset();
        }
        None
    }

    /// Accepts a connection as soon as the limits permit it. Cancel safe.
    async fn accept(
        &self,
    ) -> (OwnedSemaphorePermit, OwnedSemaphorePermit, TargetSocket, Option<SocketAddr>) {
        loop {
            // These semaphores are never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return pending().await;
            };
            let Ok(slot) = Arc::clone(&self.forwards).acquire_owned().await else {
                return pending().await;
            };
            match self.socket.accept().await {
                Ok((socket, peer)) => return (place, slot, socket, peer),
                Err(error) => {
                    tracing::debug!(%error, "a listener cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for OpenListener {
    fn drop(&mut self) {
        let waiting = lock(&self.registry.0).remove(&self.id);
        for (_, connection) in waiting.into_iter().flatten() {
            connection.socket.reset();
        }
    }
}

impl ListeningSocket {
    async fn accept(&self) -> io::Result<(TargetSocket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                // A small message must not wait for the ack of the previous one (Nagle). The call fails only if the
                // client has already closed the connection.
                let _ = socket.set_nodelay(true);
                Ok((TargetSocket::Tcp(socket), Some(peer)))
            }
            Self::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                Ok((TargetSocket::Unix(socket), None))
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::io::Read;
    use std::net::TcpStream as StdTcpStream;
    use tokio::time::timeout;

    fn listener(registry: &ListenerRegistry) -> (OpenListener, SocketAddr) {
        let forwards = Arc::new(Semaphore::new(200));
        let slot = Arc::clone(&forwards).try_acquire_owned().unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let bound = (BoundSocket::Tcp(socket), ForwardAddress::Tcp(address));
        let id = format!("{}", address.port()).parse().unwrap();
        (registry.add(id, bound, forwards, slot).unwrap().unwrap(), address)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_not_taken_in_time_is_reset() {
        let registry = ListenerRegistry::default();
        let (mut listener, address) = listener(&registry);
        let mut client = StdTcpStream::connect(address).unwrap();
        let number = listener.next().await.connection;
        let none = timeout(2 * ACCEPT_DEADLINE, listener.next()).await;
        assert!(none.is_err(), "{none:?}");
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(registry.take(&listener.id, number).is_none());
    }

    #[tokio::test]
    async fn a_limited_number_waits_and_a_taken_one_makes_room() {
        let registry = ListenerRegistry::default();
        let (mut listener, address) = listener(&registry);
        let connect = |_| StdTcpStream::connect(address).unwrap();
        let clients: Vec<_> = (0..MAX_WAITING + 2).map(connect).collect();
        for number in 1..=MAX_WAITING as u64 {
            assert_eq!(listener.next().await.connection, number);
        }
        assert!(listener.next().now_or_never().is_none());
        let taken = registry.take(&listener.id, 7).unwrap();
        assert_eq!(taken.peer, Some(clients[6].local_addr().unwrap()));
        assert_eq!(listener.next().await.connection, MAX_WAITING as u64 + 1);
        assert!(listener.next().now_or_never().is_none());
        listener.refuse(1);
        assert_eq!(listener.next().await.connection, MAX_WAITING as u64 + 2);
        let id = listener.id.clone();
        drop(listener);
        assert!(registry.take(&id, 2).is_none());
    }
}
