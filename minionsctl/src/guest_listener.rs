//! A listening socket in a guest, which is opened again when its connection breaks.
//!
//! ```text
//!  open ─▶ listening ── connection ─▶ ConnectionServer::serve, one task each
//!            ▲    │ lost
//!            │    ▼
//!          pause, open again on the same address
//! ```

use crate::client::{
    ConnectionRequest, DaemonClient, ListenerCommands, ListenerLink, ListenerLoss,
};
use crate::failure::Failure;
use crate::output::failure_line;
use minions_api::VmName;
use minions_api::forward::{ForwardAddress, ListenerId, WaitingConnection};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

/// First and longest pause between two attempts to listen again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Time after which a listener counts as stable, so that the next pause is short again.
const STABLE: Duration = Duration::from_secs(10);

/// Refused connections that wait to be reported to the agent. Beyond it, tasks of connections wait.
const MAX_REFUSALS: usize = 16;

/// Service of the connections of a listener.
pub(crate) trait ConnectionServer: Clone + Send + Sync + 'static {
    /// Serves a connection: takes or refuses it.
    fn serve(self, connection: PendingConnection) -> impl Future<Output = ()> + Send;

    /// Reports the loss of the listener, or that it is open again.
    fn report(&self, message: String);
}

/// Connection that waits in the guest.
#[derive(Debug)]
pub(crate) struct PendingConnection {
    listener: ListenerId,
    waiting: WaitingConnection,
    refusals: mpsc::Sender<u64>,
}

impl PendingConnection {
    /// Returns the request that takes the connection.
    pub(crate) fn request(&self) -> ConnectionRequest {
        let (listener, connection) = (self.listener.clone(), self.waiting.connection);
        ConnectionRequest::Waiting { listener, connection }
    }

    /// Returns the number and the other side of the connection.
    pub(crate) fn waiting(&self) -> &WaitingConnection {
        &self.waiting
    }

    /// Resets the connection.
    pub(crate) async fn refuse(&self) {
        // Fails if the listener is lost: then the connection is reset with it.
        let _ = self.refusals.send(self.waiting.connection).await;
    }
}

/// Listening socket in a guest. Dropping it closes the socket.
#[derive(Debug)]
pub(crate) struct GuestListener {
    client: Arc<DaemonClient>,
    vm: VmName,
    owner: Option<String>,
    /// True if the socket has a directory of its own, which is removed with it: it cannot be opened again.
    is_private: bool,
    link: ListenerLink,
    commands: ListenerCommands,
}

impl GuestListener {
    /// Listens in a guest.
    pub(crate) async fn open(
        client: Arc<DaemonClient>,
        vm: VmName,
        address: &ForwardAddress,
        owner: Option<String>,
    ) -> Result<Self, Failure> {
        let (link, commands) = client.listen(&vm, address, owner.as_deref()).await?;
        let is_private = matches!(address, ForwardAddress::Private(_));
        Ok(Self { client, vm, owner, is_private, link, commands })
    }

    /// Returns the address on which the agent listens, with the chosen port or path.
    pub(crate) fn address(&self) -> &ForwardAddress {
        &self.link.address
    }

    /// Serves connections until the future is dropped or a private socket is lost. `places` limits the connections at
    /// the same time. Their tasks are spawned on `tasks`, and continue after the listener has ended.
    pub(crate) async fn run(
        mut self,
        server: impl ConnectionServer,
        places: Arc<Semaphore>,
        tasks: TaskTracker,
    ) {
        let mut pause = PAUSES.0;
        loop {
            let opened = Instant::now();
            let loss = self.serve(&server, &places, &tasks).await;
            if opened.elapsed() >= STABLE {
                pause = PAUSES.0;
            }
            let address = self.link.address.clone();
            let listener = format!("{} {address}", self.vm);
            if self.is_private {
                return server.report(format!("{listener}: {loss}"));
            }
            server.report(format!("{listener}: {loss}; listening again as soon as possible"));
            pause = self.open_again(&address, &server, pause).await;
            server.report(format!("{listener}: listening again"));
        }
    }

    /// Serves connections until the listener is lost.
    async fn serve(
        &mut self,
        server: &impl ConnectionServer,
        places: &Arc<Semaphore>,
        tasks: &TaskTracker,
    ) -> ListenerLoss {
        let (refuse, mut refusals) = mpsc::channel(MAX_REFUSALS);
        let mut place: Option<OwnedSemaphorePermit> = None;
        loop {
            tokio::select! {
                // The semaphore is never closed.
                free = Arc::clone(places).acquire_owned(), if place.is_none() => place = free.ok(),
                waiting = self.link.next(), if place.is_some() => {
                    let waiting = match waiting {
                        Ok(waiting) => waiting,
                        Err(loss) => return loss,
                    };
                    let (listener, refusals) = (self.link.listener.clone(), refuse.clone());
                    let pending = PendingConnection { listener, waiting, refusals };
                    let (server, place) = (server.clone(), place.take());
                    tasks.spawn(async move {
                        server.serve(pending).await;
                        drop(place);
                    });
                }
                Some(connection) = refusals.recv() => self.commands.refuse(connection).await,
            }
        }
    }

    /// Listens on the same address again, with retries until it succeeds: the guest may be rebooting. Returns the pause
    /// before the next attempt.
    async fn open_again(
        &mut self,
        address: &ForwardAddress,
        server: &impl ConnectionServer,
        mut pause: Duration,
    ) -> Duration {
        let mut last_reason = String::new();
        loop {
            sleep(pause).await;
            pause = PAUSES.1.min(pause * 2);
            match self.client.listen(&self.vm, address, self.owner.as_deref()).await {
                Ok((link, commands)) => {
                    (self.link, self.commands) = (link, commands);
                    return pause;
                }
                Err(failure) => {
                    let reason = failure_line(&failure);
                    // While the guest is away, the attempts fail in the same way.
                    if reason != last_reason && !failure.is_transient() {
                        server.report(format!("{} {address}: {reason}", self.vm));
                        last_reason = reason;
                    }
                }
            }
        }
    }
}
