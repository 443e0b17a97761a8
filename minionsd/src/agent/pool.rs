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

use super::pace::StreamPace;
use super::{AgentConnection, ConnectError, Connector, StreamTurns};
use minions_api::vm::PoolFigures;
use minions_proto::connection::Liveness;
use minions_proto::message::HealthCheck;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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

/// Why there is no connection to use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckoutError {
    /// Too many calls are under way or waiting.
    #[error("all connections to this VM are in use")]
    Exhausted,
    /// The caller's own deadline came first.
    #[error("deadline passed while waiting for a connection")]
    TimedOut,
    /// A new one can't be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
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
    stock: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    idle: Vec<Idle>,
    /// Cancelled when the agent behind the connections is another one: what was connected before
    /// leads nowhere.
    epoch: CancellationToken,
}

#[derive(Debug)]
struct Idle {
    connection: AgentConnection,
    since: Instant,
}

impl Pool {
    /// A pool in which `limit` calls can be under way at once, at least two.
    pub(crate) fn new(connector: Connector, limit: usize) -> Self {
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
            stock: Mutex::default(),
        }))
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

    /// Ends every connection, those in use too: the agent that they led to is gone.
    pub(crate) fn flush(&self) {
        let mut stock = self.0.stock();
        stock.epoch.cancel();
        *stock = Stock::default();
    }

    /// Closes what nobody has wanted for [`IDLE_TIMEOUT`].
    pub(crate) fn evict_idle(&self) {
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
        let reused = self.reuse(idempotent, deadline).await;
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
        let connection = Some(connection);
        Ok(Checkout { connection, reused: is_reused, epoch, pool: self.clone(), permit })
    }

    /// Replaces a reused connection that turned out to be dead by a new one.
    pub(crate) async fn renew(
        &self,
        mut checkout: Checkout,
        deadline: Instant,
    ) -> Result<Checkout, CheckoutError> {
        checkout.connection = None;
        let (connection, epoch) = self.connect(deadline).await?;
        checkout.connection = Some(connection);
        checkout.epoch = epoch;
        checkout.reused = false;
        Ok(checkout)
    }

    async fn connect(
        &self,
        deadline: Instant,
    ) -> Result<(AgentConnection, CancellationToken), CheckoutError> {
        // Before it is dialled: what is replaced in between has been replaced for this one too.
        let epoch = self.0.stock().epoch.clone();
        let connection = timeout_at(deadline, self.0.connector.connect())
            .await
            .map_err(|_| CheckoutError::TimedOut)??;
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
    ) -> Option<(AgentConnection, CancellationToken)> {
        loop {
            let (Idle { mut connection, since }, epoch) = self.0.stock().pop()?;
            if connection.liveness() == Liveness::Dead {
                continue;
            }
            if idempotent || since.elapsed() < SUSPECT_AFTER {
                return Some((connection, epoch));
            }
            let ping = deadline.min(Instant::now() + PING_DEADLINE);
            if connection.call(&HealthCheck {}, ping).await.is_ok() {
                return Some((connection, epoch));
            }
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

/// A connection for the length of one call. Goes back to the pool when dropped, if its last
/// exchange was complete.
#[derive(Debug)]
pub(crate) struct Checkout {
    /// `None` only while it is being replaced or given back.
    connection: Option<AgentConnection>,
    reused: bool,
    epoch: CancellationToken,
    pool: Pool,
    permit: OwnedSemaphorePermit,
}

impl Checkout {
    /// Whether it has carried a call before: if so, it may be dead without anybody having noticed.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Cancelled when the agent at its other end is gone.
    pub(crate) fn epoch(&self) -> &CancellationToken {
        &self.epoch
    }

    /// Takes the connection for good, with the permit that bounds how many there are.
    pub(super) fn into_parts(
        mut self,
    ) -> Option<(AgentConnection, CancellationToken, OwnedSemaphorePermit)> {
        let connection = self.connection.take()?;
        // All of it: what stays with us counts for nothing.
        let permit = self.permit.split(1)?;
        Some((connection, self.epoch.clone(), permit))
    }

    /// The connection.
    pub(crate) fn connection(&mut self) -> Option<&mut AgentConnection> {
        self.connection.as_mut()
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.pool.0.connector.descriptors().are_short() {
            // Others need it more than our next call does.
            return;
        }
        connection.get_mut().rest();
        let mut stock = self.pool.0.stock();
        // Flushing takes the same lock, so it can't come in between.
        let current = !self.epoch.is_cancelled();
        if current && connection.is_reusable() && stock.idle.len() < self.pool.0.limit {
            stock.idle.push(Idle { connection, since: Instant::now() });
        }
    }
}
