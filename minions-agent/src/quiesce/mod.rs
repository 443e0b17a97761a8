//! Quiesce: brings the guest's file systems into a consistent state for a snapshot, and keeps them so for a lease.
//!
//! ```text
//!            hooks       sync, FIFREEZE        reply
//!   idle ──▶ preparing ─▶ freezing ──────────▶ quiesced ──▶ thawed ──▶ thaw hooks ──▶ idle
//!               │ failed      │ failed            ▲  thaw request, end of the lease,    ▲
//!               └─────────────┴───────────────────┼─ or the keeper has ended ───────────┘
//!                                                 └─ until then, only health, status and thaw are answered
//! ```
//!
//! One task owns a quiesce from its hooks to its end. A thaw only needs descriptors that are open already and one system
//! call for each: it starts no process and writes no byte, because the write could wait for the thaw.
//!
//! Who thaws if the agent is killed: the [`keeper`], a process of its own. The thaw hooks remain to be run by the next
//! agent (`marker`), which also thaws the file systems if the keeper was killed too.

mod error;
mod frozen_set;
pub mod keeper;
mod marker;
mod mounts;
mod task;

pub(crate) use error::QuiesceError;

use crate::boot_clock::{self, milliseconds};
use crate::exec::Executor;
use crate::lock::lock;
use marker::QuiesceMarker;
use minions_proto::message::{Quiesce, QuiesceLease, Quiesced, Thaw, Thawed};
use minions_proto::{AgentError, ErrorCode, Invalid, Request};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use task::{QuiesceTask, ThawOrder};
use tokio::sync::{mpsc, oneshot};

/// Most thaw requests that wait for the end of one quiesce.
const MAX_ORDERS: usize = 8;

/// Settings of [`QuiesceControl`].
#[derive(Debug)]
pub(crate) struct QuiesceSettings {
    /// Directory with the directories of the hooks: `/etc/minions`.
    pub(crate) hook_dir: PathBuf,
    /// Directory for state that lasts until the next boot.
    pub(crate) run_dir: PathBuf,
    /// Program of the keeper: the agent's own.
    pub(crate) program: PathBuf,
    /// True if the file systems of this machine may be frozen.
    pub(crate) freezes: bool,
}

/// Quiesces and thaws the guest.
#[derive(Debug, Clone)]
pub(crate) struct QuiesceControl {
    shared: Arc<QuiesceState>,
}

#[derive(Debug)]
struct QuiesceState {
    settings: QuiesceSettings,
    executor: Executor,
    marker: QuiesceMarker,
    stage: Mutex<QuiesceStage>,
}

#[derive(Debug, Default)]
struct QuiesceStage {
    active: Option<ActiveQuiesce>,
    /// Number of the last quiesce.
    last: u64,
    /// Last quiesce that has ended, for messages.
    ended: Option<EndedQuiesce>,
}

#[derive(Debug)]
struct ActiveQuiesce {
    id: String,
    orders: mpsc::Sender<ThawOrder>,
    /// End of the lease on the boot clock, while other requests are refused.
    until: Option<Duration>,
}

#[derive(Debug)]
struct EndedQuiesce {
    id: String,
    /// Continuation of "the quiesce …".
    how: &'static str,
    at: Duration,
    /// Reply to the thaw that ended it. A caller that lost the reply can request it again by the id.
    reply: Option<Thawed>,
}

impl QuiesceControl {
    /// Completes what a previous agent has left undone, in the background.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub(crate) fn new(settings: QuiesceSettings, executor: Executor) -> Self {
        let marker = QuiesceMarker::new(&settings.run_dir, &settings.hook_dir);
        let stage = Mutex::default();
        let quiescer =
            Self { shared: Arc::new(QuiesceState { settings, executor, marker, stage }) };
        if quiescer.shared.marker.is_left() {
            let shared = Arc::clone(&quiescer.shared);
            tokio::spawn(async move {
                tracing::warn!("ending the quiesce of the previous agent");
                task::end_leftover(&shared).await;
            });
        }
        quiescer
    }

    /// Quiesces the guest.
    ///
    /// If the future is dropped, the guest is thawed.
    pub(crate) async fn quiesce(&self, call: Quiesce) -> Result<Quiesced, QuiesceError> {
        let lease = Duration::from_millis(call.ttl_ms()?);
        if call.freeze_fs && !self.shared.settings.freezes {
            let reason = "needs an agent that serves VSOCK: this agent serves a socket of its own machine, whose file \
                          systems it does not freeze";
            return Err(Invalid::new("freeze_fs", reason).into());
        }
        let (sender, orders) = mpsc::channel(MAX_ORDERS);
        let id = self.begin(sender)?;
        let (begun, outcome) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(QuiesceTask { shared, id, call, lease, orders }.run(begun));
        outcome.await.unwrap_or(Err(error::QuiesceFailure::Interrupted.into()))
    }

    /// Registers a quiesce and returns its id.
    fn begin(&self, orders: mpsc::Sender<ThawOrder>) -> Result<String, QuiesceError> {
        let mut stage = lock(&self.shared.stage);
        match &stage.active {
            Some(ActiveQuiesce { until: Some(until), .. }) => {
                let left = until.saturating_sub(boot_clock::now());
                return Err(QuiesceError::AlreadyQuiesced { left });
            }
            Some(ActiveQuiesce { until: None, .. }) => return Err(QuiesceError::Changing),
            None => {}
        }
        stage.last += 1;
        let id = format!("quiesce-{}-{}", std::process::id(), stage.last);
        stage.active = Some(ActiveQuiesce { id: id.clone(), orders, until: None });
        Ok(id)
    }

    /// Ends a quiesce, and returns when its thaw hooks have run. Dropping the future does not stop that. A repetition with
    /// the id of the last quiesce gets the same reply, if that quiesce ended by a thaw.
    pub(crate) async fn thaw(&self, call: Thaw) -> Result<Thawed, QuiesceError> {
        let (order, done) = oneshot::channel();
        {
            let stage = lock(&self.shared.stage);
            let wanted =
                |active: &&ActiveQuiesce| call.id.as_ref().is_none_or(|id| *id == active.id);
            match stage.active.as_ref().filter(wanted) {
                Some(active) => {
                    active.orders.try_send(order).map_err(|_| QuiesceError::Changing)?
                }
                None => return stage.ended_by(&call).ok_or_else(|| stage.not_quiesced()),
            }
        }
        done.await.map_err(|_| lock(&self.shared.stage).not_quiesced())
    }

    /// Returns the current lease; `None` if the guest is not quiesced.
    pub(crate) fn lease(&self) -> Option<QuiesceLease> {
        let stage = lock(&self.shared.stage);
        let ActiveQuiesce { id, until, .. } = stage.active.as_ref()?;
        let lease_ms = milliseconds((*until)?.saturating_sub(boot_clock::now()));
        Some(QuiesceLease { id: id.clone(), lease_ms })
    }

    /// Returns the refusal of a request that is not answered while the guest is quiesced.
    pub(crate) fn refusal(&self, request: &Request) -> Option<AgentError> {
        // A second quiesce is refused with a message of its own.
        if let Request::HealthCheck(_)
        | Request::ReportStatus(_)
        | Request::Quiesce(_)
        | Request::Thaw(_) = request
        {
            return None;
        }
        let left = self.lease()?.lease_ms;
        let message = format!(
            "the guest is quiesced, for at most {left} ms more: until then, only health, status and thaw are answered"
        );
        Some(AgentError::new(ErrorCode::Quiesced, message))
    }
}

impl QuiesceStage {
    /// Returns the reply to an earlier thaw with the same id.
    fn ended_by(&self, call: &Thaw) -> Option<Thawed> {
        let ended = self.ended.as_ref().filter(|ended| call.id.as_ref() == Some(&ended.id))?;
        ended.reply.clone()
    }

    fn not_quiesced(&self) -> QuiesceError {
        let last = self.ended.as_ref().map(|EndedQuiesce { id, how, at, .. }| {
            let seconds = boot_clock::now().saturating_sub(*at).as_secs();
            format!(": {id} {how} {seconds} s ago")
        });
        QuiesceError::NotQuiesced(last.unwrap_or_default())
    }
}
