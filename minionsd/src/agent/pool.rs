//! Connections to one agent that wait for their next call.
//!
//! ```text
//!            checkout: a permit, then …               give back
//!  caller ──▶ youngest idle one that is quiet ──▶ call ──▶ idle, if the whole reply was read
//!         └─▶ none: dial                              └──▶ closed otherwise
//! ```
//!
//! * The youngest goes first, so the surplus of a burst grows old at the bottom and is evicted.
//! * A permit bounds the calls under way. Calls that take as long as a program in the guest can't
//!   have the last one: it is the [`Lane::Quick`] calls' own.
//! * Streams are bounded for themselves ([`Lane::Beside`]): however many programs are followed for
//!   however long, the calls have what they had before.
//! * A connection that closed or spoke while it idled is never used. After a guest reset it may do
//!   neither for ever, so one that idled for long is asked before it carries what can't be repeated.
//! * A VM that may be paused is not dialled ([`gate`](super::gate)), and no connection to it is closed: both
//!   can make it unreachable for good.

use super::checkout::{Borrowed, Checkout, CheckoutError};
use super::gate::DialGate;
use super::pace::StreamPace;
use super::{AgentConnection, ConnectError, Connector, StreamTurns};
use minions_api::vm::PoolFigures;
use minions_proto::connection::Liveness;
use minions_proto::message::HealthCheck;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// After this long a connection may be dead without showing it.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// How long a suspect connection has to answer.
const PING_DEADLINE: Duration = Duration::from_secs(1);

/// A connection that nobody wanted for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Callers that may wait for a permit of one VM; a further one is turned away at once.
const MAX_WAITING: usize = 256;

/// How long a caller waits for a permit before it is turned away.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Permits that only [`Lane::Quick`] gets.
const QUICK_PERMITS: usize = 1;

/// Streams open at once.
const MAX_BESIDE: usize = 64;

/// Streams that dial at once; the others wait for their turn. Together with a pool of the default
/// size and its supervisor fewer than a connector allows.
const MAX_BESIDE_DIALS: usize = 8;

/// What kind of call a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The agent answers by itself: health, status, network.
    Quick,
    /// It lasts as long as a program in the guest does.
    Long,
    /// Likewise, and there may be many: bounded apart, and turned away at once beyond that.
    Beside,
}

/// One VM's connections. A cheap clone of one pool.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connector: Connector,
    limit: usize,
    long: Arc<Semaphore>,
    quick: Arc<Semaphore>,
    beside: Arc<Semaphore>,
    beside_dials: Semaphore,
    pace: Arc<StreamPace>,
    turns: StreamTurns,
    waiting: AtomicUsize,
    gate: DialGate,
    stock: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    idle: Vec<Idle>,
    /// Unanswered connections of calls that were given up, oldest first. They are closed when the agent
    /// answers a probe.
    parked: VecDeque<AgentConnection>,
    /// Cancelled when the agent behind the connections is another one: what was connected before
    /// leads nowhere.
    epoch: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Idle {
    pub(super) connection: AgentConnection,
    pub(super) since: Instant,
}

impl Pool {
    /// A pool in which `limit` calls can be under way at once, at least two. `nudge` makes the VM's supervisor
    /// probe.
    pub(crate) fn new(connector: Connector, limit: usize, nudge: Arc<Notify>) -> Self {
        let limit = limit.max(QUICK_PERMITS + 1);
        Self(Arc::new(Shared {
            connector,
            limit,
            long: Arc::new(Semaphore::new(limit - QUICK_PERMITS)),
            quick: Arc::new(Semaphore::new(QUICK_PERMITS)),
            beside: Arc::new(Semaphore::new(MAX_BESIDE)),
            beside_dials: Semaphore::new(MAX_BESIDE_DIALS),
            pace: Arc::default(),
            turns: StreamTurns::default(),
            waiting: AtomicUsize::new(0),
            gate: DialGate::new(nudge),
            stock: Mutex::default(),
        }))
    }

    /// Whether calls may dial.
    pub(crate) fn gate(&self) -> &DialGate {
        &self.0.gate
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.0.connector
    }

    /// The processing rate that all streams of this VM share.
    pub(super) fn pace(&self) -> Arc<StreamPace> {
        Arc::clone(&self.0.pace)
    }

    /// The turns in which all streams of this VM work.
    pub(crate) fn turns(&self) -> &StreamTurns {
        &self.0.turns
    }

    /// What `GET /vms/{vm}` shows.
    pub(crate) fn figures(&self) -> PoolFigures {
        let free = self.0.long.available_permits() + self.0.quick.available_permits();
        PoolFigures {
            idle: self.0.stock().idle.len(),
            in_use: self.0.limit.saturating_sub(free),
            limit: self.0.limit,
            waiting: self.0.waiting.load(Ordering::Relaxed).min(MAX_WAITING),
            streams: MAX_BESIDE.saturating_sub(self.0.beside.available_permits()),
        }
    }

    /// Closes every idle connection: the agent doesn't answer, so they are suspect. Those in use may
    /// still come to their end.
    pub(crate) fn close_idle(&self) {
        self.0.stock().idle.clear();
    }

    /// Closes the unanswered connections of calls that were given up.
    pub(crate) fn close_parked(&self) {
        self.0.stock().parked.clear();
    }

    /// Ends every connection, those in use too: the agent that they led to is gone.
    pub(crate) fn flush(&self) {
        let mut stock = self.0.stock();
        stock.epoch.cancel();
        *stock = Stock::default();
    }

    /// Closes what nobody has wanted for [`IDLE_TIMEOUT`], unless the VM may be paused.
    pub(crate) fn evict_idle(&self) {
        if !self.0.gate.is_open() {
            return;
        }
        self.0.stock().idle.retain(|idle| idle.since.elapsed() < IDLE_TIMEOUT);
    }

    /// A connection for one call, before `deadline`.
    ///
    /// Cancel safe.
    pub(crate) async fn checkout(
        &self,
        lane: Lane,
        idempotent: bool,
        deadline: Instant,
    ) -> Result<Checkout, CheckoutError> {
        let permit = self.permit(lane, deadline).await?;
        let reused = self.reuse(idempotent, deadline).await?;
        let is_reused = reused.is_some();
        let (connection, epoch) = match reused {
            Some(reused) => reused,
            None if lane == Lane::Beside => {
                let turn = timeout_at(deadline, self.0.beside_dials.acquire()).await;
                // A semaphore of ours is never closed.
                let _turn = turn.map_err(|_| CheckoutError::TimedOut)?;
                self.connect(deadline).await?
            }
            None => self.connect(deadline).await?,
        };
        Ok(Checkout::new(connection, is_reused, epoch, self.clone(), permit))
    }

    /// Replaces a reused connection that turned out to be dead by a new one.
    pub(crate) async fn renew(
        &self,
        mut checkout: Checkout,
        deadline: Instant,
    ) -> Result<Checkout, CheckoutError> {
        checkout.close();
        let (connection, epoch) = self.connect(deadline).await?;
        checkout.replace(connection, epoch);
        Ok(checkout)
    }

    async fn connect(
        &self,
        deadline: Instant,
    ) -> Result<(AgentConnection, CancellationToken), CheckoutError> {
        // Before it is dialled: what is replaced in between has been replaced for this one too.
        let epoch = loop {
            let epoch = self.0.stock().epoch.clone();
            self.0.gate.pass(deadline).await.map_err(CheckoutError::Barred)?;
            if !epoch.is_cancelled() {
                break epoch;
            }
        };
        let connector = &self.0.connector;
        let failed = |error| {
            let (failure, message) = connector.describe(&error);
            CheckoutError::Connect { failure, message }
        };
        let connection = timeout_at(deadline, connector.connect())
            .await
            .map_err(|_| CheckoutError::TimedOut)?
            .map_err(failed)?;
        if epoch.is_cancelled() {
            return Err(failed(ConnectError::Replaced));
        }
        Ok((connection, epoch))
    }

    async fn permit(
        &self,
        lane: Lane,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, CheckoutError> {
        if lane == Lane::Beside {
            let beside = Arc::clone(&self.0.beside);
            return beside.try_acquire_owned().map_err(|_| CheckoutError::Exhausted);
        }
        let long = Arc::clone(&self.0.long);
        if let Ok(permit) = Arc::clone(&long).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::enter(&self.0.waiting).ok_or(CheckoutError::Exhausted)?;
        let patience = Instant::now() + MAX_WAIT;
        let turn = async {
            match lane {
                Lane::Long | Lane::Beside => long.acquire_owned().await,
                Lane::Quick => tokio::select! {
                    permit = Arc::clone(&self.0.quick).acquire_owned() => permit,
                    permit = long.acquire_owned() => permit,
                },
            }
        };
        match timeout_at(deadline.min(patience), turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Err(_) if deadline < patience => Err(CheckoutError::TimedOut),
            // A semaphore of ours is never closed.
            Ok(Err(_)) | Err(_) => Err(CheckoutError::Exhausted),
        }
    }

    async fn reuse(
        &self,
        idempotent: bool,
        deadline: Instant,
    ) -> Result<Option<(AgentConnection, CancellationToken)>, CheckoutError> {
        loop {
            let Some((Idle { mut connection, since }, epoch)) = self.0.stock().pop() else {
                return Ok(None);
            };
            if connection.liveness() == Liveness::Dead {
                continue;
            }
            if idempotent || since.elapsed() < SUSPECT_AFTER {
                return Ok(Some((connection, epoch)));
            }
            let idle = Idle { connection, since };
            let mut asked = Borrowed::new(idle, epoch.clone(), self);
            self.0.gate.pass(deadline).await.map_err(CheckoutError::Barred)?;
            let ping = deadline.min(Instant::now() + PING_DEADLINE);
            let Some(connection) = asked.connection() else { continue };
            if connection.call(&HealthCheck {}, ping).await.is_ok()
                && let Some(connection) = asked.take()
            {
                return Ok(Some((connection, epoch)));
            }
        }
    }

    /// Takes a connection back: to the idle ones if its last exchange was complete. If it is unanswered, it is
    /// closed only once the agent has answered a probe, which is asked for: the VM may be paused.
    pub(super) fn give_back(&self, idle: Idle, epoch: &CancellationToken) {
        let Idle { mut connection, since } = idle;
        if self.0.connector.descriptors().are_short() {
            // Others need it more than our next call does.
            return;
        }
        connection.get_mut().rest();
        let mut stock = self.0.stock();
        // Flushing takes the same lock, so it can't come in between.
        if epoch.is_cancelled() {
            return;
        }
        if connection.is_reusable() {
            if stock.idle.len() < self.0.limit {
                stock.idle.push(Idle { connection, since });
            }
        } else if connection.is_unanswered() {
            if stock.parked.len() >= self.0.limit {
                stock.parked.pop_front();
            }
            stock.parked.push_back(connection);
            self.0.gate.nudge();
        }
    }
}

impl Shared {
    /// The lock is held for a push, a pop or a look, and never over an await.
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    /// The youngest, and what it belongs to.
    fn pop(&mut self) -> Option<(Idle, CancellationToken)> {
        Some((self.idle.pop()?, self.epoch.clone()))
    }
}

/// One of the callers that wait for a permit.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::SeqCst) < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
