//! Pool of connections to one agent.
//!
//! ```text
//!            checkout: a permit, then …               give back
//!  caller ──▶ newest idle connection, if usable ──▶ call ──▶ idle, if the whole reply was read
//!         └─▶ none: dial                                └──▶ closed or parked otherwise
//! ```
//!
//! * The connection that was returned last is used first, so the surplus of a burst stays idle and is evicted.
//! * Permits bound the calls in flight. The last permit is reserved for [`Lane::Quick`]: calls that take as long
//!   as a program in the guest cannot have it.
//! * Streams, and calls that are counted like them, have their own limit. Their number and duration do not reduce
//!   the connections that other calls can have.
//! * A connection that was closed, or on which bytes arrived, while it was idle is never used. After a reset of
//!   the guest, a connection may stay silent forever. So one that was idle for long must pass a health check
//!   before it carries a call that must not be repeated.
//! * A VM that may be paused is not dialled ([`gate`](super::gate)), and no connection to it is closed: both
//!   can make it unreachable for good.

use super::accept_rate::AcceptRate;
use super::checkout::{Checkout, TestedConnection};
use super::checkout_error::CheckoutError;
use super::connector::{AgentConnection, ConnectError, Connector};
use super::gate::DialGate;
use super::pace::StreamPace;
use super::pooled::{IdleConnection, PooledConnections};
use super::turns::StreamTurns;
use minions_api::vm::PoolFigures;
use minions_proto::connection::Liveness;
use minions_proto::message::HealthCheck;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Idle time after which a connection may be dead without any sign of it.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// Deadline for the health check on a suspect connection.
const PING_DEADLINE: Duration = Duration::from_secs(1);

/// Idle time after which a connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Most callers that may wait for a permit of one VM. Further callers are rejected at once.
const MAX_WAITING: usize = 256;

/// Longest wait for a permit, after which the caller is rejected.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Permits that are reserved for [`Lane::Quick`].
const QUICK_PERMITS: usize = 1;

/// Most streams to one VM at the same time, with the calls that are counted like streams.
const MAX_STREAMS: usize = 64;

/// Most forwards to one VM at the same time. An agent has its own limit, 320 with the usual number of descriptors.
const MAX_FORWARDS: usize = 512;

/// Most connections of the listeners in one VM at the same time: an eighth of the places for WebSockets of all VMs.
const MAX_ACCEPTED: usize = 128;

/// Most streams and forwards to one VM that dial at the same time; the others wait for their turn. Together with the dials of
/// the supervisor and of a pool of the default size, this is below the limit of the connector.
const MAX_STREAM_DIALS: usize = 8;

/// Class of a call, which determines the permits that it can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Call that runs no program, so that the agent answers at once: health, status, network.
    Quick,
    /// Call that lasts as long as a program in the guest.
    Long,
    /// Stream, or call that is counted like one, because it may last long and there may be many. These have their own
    /// limit, and are rejected at once beyond it.
    Stream,
    /// Call of the daemon itself, counted like a stream. A connection that it dialled is closed after it: the next one
    /// comes later than idle connections are kept, and thousands of VMs are called in turns.
    Background,
    /// Forward. It has a limit of its own, because a client may hold many for as long as it likes.
    Forward,
    /// Connection of a listener in the guest. It has a limit and a rate of its own, because programs in the guest decide
    /// how many there are.
    Accepted,
}

impl Lane {
    /// Reports whether the calls take turns when they dial, because there may be many.
    fn takes_dial_turns(self) -> bool {
        match self {
            Self::Stream | Self::Background | Self::Forward | Self::Accepted => true,
            Self::Quick | Self::Long => false,
        }
    }
}

/// Connections to one VM. Cheap to clone: the clones share one pool.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<PoolState>);

#[derive(Debug)]
struct PoolState {
    connector: Connector,
    limit: usize,
    long: Arc<Semaphore>,
    quick: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    forwards: Arc<Semaphore>,
    accepted: Arc<Semaphore>,
    accept_rate: AcceptRate,
    stream_dials: Semaphore,
    pace: Arc<StreamPace>,
    turns: StreamTurns,
    waiting: AtomicUsize,
    gate: DialGate,
    pooled: Arc<PooledConnections>,
}

impl Pool {
    /// Creates a pool in which `limit` calls, at least two, can be in flight at the same time. `nudge` makes the
    /// VM's supervisor probe.
    pub(crate) fn new(connector: Connector, limit: usize, nudge: Arc<Notify>) -> Self {
        let limit = limit.max(QUICK_PERMITS + 1);
        let descriptors = connector.descriptors().clone();
        let pooled = PooledConnections::new(limit, descriptors, Arc::clone(&nudge));
        Self(Arc::new(PoolState {
            connector,
            limit,
            long: Arc::new(Semaphore::new(limit - QUICK_PERMITS)),
            quick: Arc::new(Semaphore::new(QUICK_PERMITS)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            forwards: Arc::new(Semaphore::new(MAX_FORWARDS)),
            accepted: Arc::new(Semaphore::new(MAX_ACCEPTED)),
            accept_rate: AcceptRate::default(),
            stream_dials: Semaphore::new(MAX_STREAM_DIALS),
            pace: Arc::default(),
            turns: StreamTurns::default(),
            waiting: AtomicUsize::new(0),
            gate: DialGate::new(nudge),
            pooled: Arc::new(pooled),
        }))
    }

    /// Returns the gate that decides whether calls may dial.
    pub(crate) fn gate(&self) -> &DialGate {
        &self.0.gate
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.0.connector
    }

    /// Returns the processing rate that all streams of this VM share.
    pub(super) fn pace(&self) -> Arc<StreamPace> {
        Arc::clone(&self.0.pace)
    }

    /// Returns the turns in which all streams of this VM work.
    pub(crate) fn turns(&self) -> &StreamTurns {
        &self.0.turns
    }

    /// Returns the figures for `GET /vms/{vm}`.
    pub(crate) fn figures(&self) -> PoolFigures {
        let free = self.0.long.available_permits() + self.0.quick.available_permits();
        PoolFigures {
            idle: self.0.pooled.idle(),
            in_use: self.0.limit.saturating_sub(free),
            limit: self.0.limit,
            waiting: self.0.waiting.load(Ordering::Relaxed).min(MAX_WAITING),
            streams: MAX_STREAMS.saturating_sub(self.0.streams.available_permits()),
        }
    }

    /// Closes all idle connections: the agent does not answer, so they are suspect. Calls in flight may still
    /// complete.
    pub(crate) fn close_idle(&self) {
        self.0.pooled.close_idle();
    }

    /// Closes the parked connections, on which an abandoned call is unanswered.
    pub(crate) fn close_parked(&self) {
        self.0.pooled.close_parked();
    }

    /// Ends all connections, including those in use: the agent that they led to is gone.
    pub(crate) fn flush(&self) {
        self.0.pooled.flush();
    }

    /// Closes the connections that have been idle for [`IDLE_TIMEOUT`], unless the VM may be paused.
    pub(crate) fn evict_idle(&self) {
        if self.0.gate.is_open() {
            self.0.pooled.evict_idle(IDLE_TIMEOUT);
        }
    }

    /// Returns a connection for one call, before `deadline`: an idle one if possible, otherwise a new one.
    ///
    /// Cancel safe.
    pub(crate) async fn checkout(
        &self,
        lane: Lane,
        idempotent: bool,
        deadline: Instant,
    ) -> Result<Checkout, CheckoutError> {
        let permit = self.permit(lane, deadline).await?;
        let reused = self.reuse(lane, idempotent, deadline).await?;
        let is_reused = reused.is_some();
        let (connection, epoch) = match reused {
            Some(reused) => reused,
            None if lane.takes_dial_turns() => {
                let turn = timeout_at(deadline, self.0.stream_dials.acquire()).await;
                // A semaphore of ours is never closed.
                let _turn = turn.map_err(|_| CheckoutError::TimedOut)?;
                self.connect(deadline).await?
            }
            None => self.connect(deadline).await?,
        };
        Ok(Checkout::new(connection, is_reused, epoch, Arc::clone(&self.0.pooled), permit))
    }

    /// Replaces a reused connection that turned out to be dead with a new one.
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
        // Read before the dial: if the agent is replaced meanwhile, this connection may lead to the old one.
        let epoch = loop {
            let epoch = self.0.pooled.epoch();
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
        let own = match lane {
            Lane::Stream | Lane::Background => Some(&self.0.streams),
            Lane::Forward => Some(&self.0.forwards),
            Lane::Accepted => Some(&self.0.accepted),
            Lane::Quick | Lane::Long => None,
        };
        if let Some(own) = own {
            let permit = Arc::clone(own).try_acquire_owned();
            let permit = permit.map_err(|_| CheckoutError::Exhausted)?;
            if lane == Lane::Accepted {
                let turn = timeout_at(deadline, self.0.accept_rate.turn());
                turn.await.map_err(|_| CheckoutError::TimedOut)?;
            }
            return Ok(permit);
        }
        let long = Arc::clone(&self.0.long);
        if let Ok(permit) = Arc::clone(&long).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = WaitingCaller::enter(&self.0.waiting).ok_or(CheckoutError::Exhausted)?;
        let patience = Instant::now() + MAX_WAIT;
        let turn = async {
            match lane {
                Lane::Long | Lane::Stream | Lane::Background | Lane::Forward | Lane::Accepted => {
                    long.acquire_owned().await
                }
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
        lane: Lane,
        idempotent: bool,
        deadline: Instant,
    ) -> Result<Option<(AgentConnection, CancellationToken)>, CheckoutError> {
        loop {
            let Some((idle, epoch)) = self.0.pooled.pop() else { return Ok(None) };
            let IdleConnection { mut connection, since, after_stream } = idle;
            if connection.liveness() == Liveness::Dead {
                continue;
            }
            // The agent may be about to close it. A program that is lost with it is found again by its id.
            let may_end = after_stream && lane != Lane::Stream;
            if idempotent || (since.elapsed() < SUSPECT_AFTER && !may_end) {
                return Ok(Some((connection, epoch)));
            }
            let idle = IdleConnection { connection, since, after_stream };
            let mut asked = TestedConnection::new(idle, epoch.clone(), &self.0.pooled);
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
}

/// Guard that counts a caller as waiting for a permit until it is dropped.
struct WaitingCaller<'a>(&'a AtomicUsize);

impl<'a> WaitingCaller<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::SeqCst) < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
pub(super) mod tests;
