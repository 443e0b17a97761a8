//! Listeners, and their connections that wait for the host.
//!
//! ```text
//!  client ─▶ kernel's queue ─▶ accept ─▶ waiting, at most 64 ─▶ forward_accept ─▶ session::forward
//!                                             └─ refused, or 30 s ─▶ reset
//! ```
//!
//! While 64 connections of a listener wait, or a limit is reached, the agent accepts at most one more: further
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
    permits: ForwardPermits,
    _place: OwnedSemaphorePermit,
}

/// Connection that the host has taken, with its part of the limits.
#[derive(Debug)]
pub(super) struct TakenConnection {
    pub(super) socket: TargetSocket,
    pub(super) peer: Option<SocketAddr>,
    pub(super) permits: ForwardPermits,
}

/// Part of the limits that a forward takes.
#[derive(Debug)]
pub(super) struct ForwardPermits {
    _forward: OwnedSemaphorePermit,
    _from_guest: Option<OwnedSemaphorePermit>,
}

impl From<OwnedSemaphorePermit> for ForwardPermits {
    /// Permits of a connection that the host has asked for.
    fn from(forward: OwnedSemaphorePermit) -> Self {
        Self { _forward: forward, _from_guest: None }
    }
}

/// Limits of forwards. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ForwardLimits {
    /// Limit of all forwards and listeners.
    pub(super) forwards: Arc<Semaphore>,
    /// Limit of the connections that programs in the guest have made: the host can always make others.
    pub(super) from_guest: Arc<Semaphore>,
}

impl ForwardLimits {
    /// Creates limits for `forwards`, half of which programs in the guest can use.
    pub(super) fn new(forwards: usize) -> Self {
        let limit = |count| Arc::new(Semaphore::new(count));
        Self { forwards: limit(forwards), from_guest: limit((forwards / 2).max(1)) }
    }

    /// Waits for room for a connection that a program in the guest has made. Cancel safe.
    async fn of_guest(&self) -> Option<ForwardPermits> {
        let from_guest = Arc::clone(&self.from_guest).acquire_owned().await.ok()?;
        let forward = Arc::clone(&self.forwards).acquire_owned().await.ok()?;
        Some(ForwardPermits { _forward: forward, _from_guest: Some(from_guest) })
    }
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
    limits: ForwardLimits,
    /// Accepted connection for which the limits have no room yet.
    accepted: Option<(TargetSocket, Option<SocketAddr>)>,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        file: SocketFile,
    },
    /// The listener is closed.
    Closed,
}

impl ListenerRegistry {
    /// Returns false if the limit of listeners is reached.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.0).len() < MAX_LISTENERS
    }

    /// Adds a listener, which has taken `slot` of the limit of forwards. Returns `None` if the limit of listeners is
    /// reached.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the socket.
    pub(super) fn add(
        &self,
        id: ListenerId,
        (socket, address): (BoundSocket, ForwardAddress),
        limits: ForwardLimits,
        slot: OwnedSemaphorePermit,
    ) -> io::Result<Option<OpenListener>> {
        let socket = match socket {
            BoundSocket::Tcp(socket) => ListeningSocket::Tcp(TcpListener::from_std(socket)?),
            BoundSocket::Unix(socket, file) => {
                ListeningSocket::Unix { listener: UnixListener::from_std(socket)?, file }
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
            limits,
            accepted: None,
            _slot: slot,
        }))
    }

    /// Takes a connection that waits; `None` if there is no such connection.
    pub(super) fn take(&self, id: &ListenerId, connection: u64) -> Option<TakenConnection> {
        let waiting = lock(&self.0).get_mut(id)?.remove(&connection)?;
        let WaitingSocket { socket, peer, permits, .. } = waiting;
        Some(TakenConnection { socket, peer, permits })
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
                (place, permits) = self.accept() => {
                    // `accept` has filled it.
                    let Some((socket, peer)) = self.accepted.take() else { continue };
                    let connection = self.next;
                    self.next += 1;
                    let deadline = Instant::now() + ACCEPT_DEADLINE;
                    let waiting = WaitingSocket { socket, peer, deadline, permits, _place: place };
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

    /// Accepts a connection into `accepted`, and waits until the limits permit it.
    ///
    /// Cancel safe: the accepted connection is kept.
    async fn accept(&mut self) -> (OwnedSemaphorePermit, ForwardPermits) {
        // These semaphores are never closed.
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return pending().await;
        };
        while self.accepted.is_none() {
            match self.socket.accept().await {
                Ok(accepted) => self.accepted = Some(accepted),
                Err(error) => {
                    tracing::debug!(%error, "a listener cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        match self.limits.of_guest().await {
            Some(permits) => (place, permits),
            None => pending().await,
        }
    }

    /// Closes the socket, and removes its file before it returns, unless the file system does not answer.
    pub(crate) async fn close(mut self) {
        if let ListeningSocket::Unix { file, .. } =
            std::mem::replace(&mut self.socket, ListeningSocket::Closed)
        {
            file.remove().await;
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
            Self::Closed => pending().await,
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
        let limits = ForwardLimits::new(200);
        let slot = Arc::clone(&limits.forwards).try_acquire_owned().unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let bound = (BoundSocket::Tcp(socket), ForwardAddress::Tcp(address));
        let id = format!("{}", address.port()).parse().unwrap();
        (registry.add(id, bound, limits, slot).unwrap().unwrap(), address)
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
