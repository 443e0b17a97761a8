//! Configuration of the guest's network over netlink.
//!
//! ```text
//!  plan (checked) ─▶ desired ─▶ snapshot, difference ─▶ apply ─▶ verify ─▶ commit
//!                                      │                  └───┬─────┘        │ confirm_within_ms
//!                              no difference: done       restore ◀────── no confirmation
//! ```
//!
//! Each step of [`apply`] is idempotent: it brings its part of the kernel's state to what the plan says, whatever
//! the state was before. If a step or a check fails, everything is restored from the snapshot. There is only one
//! change at a time.
//!
//! The snapshot is also in a journal in `/run` as long as it may be needed. An agent that finds a journal when it
//! starts undoes an unfinished change, or continues to wait for the confirmation.

mod address;
mod apply;
mod arrival;
mod change;
mod change_count;
mod checks;
mod config_file;
mod desired;
mod dns;
mod dns_query;
mod error;
mod events;
pub(crate) mod interfaces;
mod ipv6;
mod journal;
mod keep_off;
mod link;
mod neighbour;
mod network_manager;
mod networkd;
mod pending;
mod reading;
mod restore;
mod route;
mod rtnl;
mod saved_file;
mod snapshot;
mod state;
mod systemd;
mod tool;
mod verify;

pub(crate) use error::{ChangeError, NetworkError};

use crate::{boot_clock, error_chain};
use change_count::ChangeCount;
use dns::SystemPaths;
use journal::ChangeJournal;
use minions_proto::message::{NetworkChanged, NetworkPlan, NetworkState, PendingChange};
use pending::UnconfirmedChange;
use state::{ChangeState, ConfiguratorState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until};

/// Handle for reading and changing the network; changes are made one at a time.
#[derive(Debug)]
pub(crate) struct NetworkConfigurator {
    shared: Arc<ConfiguratorState>,
    changes: ChangeCount,
}

impl NetworkConfigurator {
    /// Makes the handle. `resolv_conf` is the file for name servers if no service manages them; `run` is `/run`.
    /// With `resume`, a change left over from a previous agent is undone, or its confirmation awaited.
    pub(crate) fn new(resolv_conf: PathBuf, run: &Path, resume: bool) -> Self {
        let shared = Arc::new(ConfiguratorState {
            system: SystemPaths { resolv_conf, run: run.to_owned() },
            journal: ChangeJournal::new(run),
            state: Arc::default(),
        });
        // Cannot fail, because the lock is new. All requests wait until the leftover change is handled.
        if resume && let Ok(state) = Arc::clone(&shared.state).try_lock_owned() {
            crate::task::spawn(left_over(Arc::clone(&shared), state));
        }
        Self { shared, changes: ChangeCount::start() }
    }

    /// Returns the number of changes of the network, its own and all others; `None` if the kernel does not report them.
    pub(crate) fn changes(&self) -> Option<u64> {
        self.changes.get()
    }

    /// Applies `plan` completely, or leaves the network as it is. Waits a few seconds for an interface that does
    /// not exist yet.
    ///
    /// Dropping the future does not stop a change that has begun.
    pub(crate) async fn configure(&self, plan: NetworkPlan) -> Result<NetworkChanged, ChangeError> {
        // Before the lock is taken: confirmations and deadlines must not wait for an interface.
        arrival::wait(&plan, &self.shared.system.run).await;
        let state = Arc::clone(&self.shared.state).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        let work = tokio::spawn(configure_locked(shared, state, plan));
        work.await.unwrap_or_else(|_| Err(ChangeError::interrupted()))
    }

    /// Confirms a change, so that it is kept. Idempotent.
    pub(crate) async fn confirm(&self, id: &str) -> Result<(), NetworkError> {
        let mut state = self.shared.state.lock().await;
        if state.confirmed.as_deref() == Some(id) {
            return Ok(());
        }
        if state.pending.as_ref().is_none_or(|pending| pending.id != id) {
            return Err(NetworkError::ChangeGone);
        }
        // The journal first: if the agent ends after this, the next one must not undo the change.
        self.shared.journal.clear()?;
        state.pending = None;
        state.confirmed = Some(id.to_owned());
        tracing::info!("network change confirmed");
        Ok(())
    }

    /// Rolls back a change that waits for its confirmation, because the client that could confirm it is one of the
    /// guest that was saved. Waits for a change in progress. Returns `None` if there is no such change.
    pub(crate) async fn roll_back_pending(&self) -> Option<Result<(), String>> {
        let mut state = self.shared.state.lock().await;
        let pending = state.pending.take()?;
        tracing::warn!("the guest was restored: rolling back the unconfirmed network change");
        let restored = put_back(&self.shared, &pending.snapshot).await;
        Some(restored.map_err(|error| error_chain(&error)))
    }

    /// Reads the present state of the network.
    pub(crate) async fn read(&self) -> Result<NetworkState, NetworkError> {
        let pending = match self.shared.state.try_lock() {
            Ok(state) => state.pending.as_ref().map(UnconfirmedChange::shown),
            // A change is in progress; its result is not known yet.
            Err(_) => None,
        };
        reading::read(&self.shared.system, pending).await
    }
}

async fn configure_locked(
    shared: Arc<ConfiguratorState>,
    mut state: OwnedMutexGuard<ChangeState>,
    plan: NetworkPlan,
) -> Result<NetworkChanged, ChangeError> {
    if let Some(pending) = state.pending.as_ref().filter(|_| !plan.dry_run) {
        return pending.asked_again(&plan);
    }
    let confirm_within = plan.confirm_within;
    let (mut reply, snapshot) = change::run(&plan, &shared.system, &shared.journal).await?;
    let Some(snapshot) = snapshot else { return Ok(reply) };
    let Some(within) = confirm_within else {
        shared.journal.clear().map_err(ChangeError::unjournaled)?;
        tracing::info!("network configured");
        return Ok(reply);
    };
    let id = journal::mint_id();
    let deadline = Instant::now() + within;
    if let Err(error) = shared.journal.write(&snapshot, Some((&id, within))) {
        return Err(change::undo("journal", error, &snapshot, &shared).await);
    }
    let pending = PendingChange { id: id.clone(), expires_in_ms: boot_clock::milliseconds(within) };
    reply.message = format!("network configured; rolled back in {within:?} unless confirmed");
    reply.pending = Some(pending);
    state.pending = Some(UnconfirmedChange {
        id: id.clone(),
        deadline,
        plan: Some(plan),
        reply: reply.clone(),
        snapshot,
    });
    drop(state);
    crate::task::spawn(expire(shared, id, deadline));
    Ok(reply)
}

/// Undoes the change at its deadline, unless it was confirmed.
async fn expire(shared: Arc<ConfiguratorState>, id: String, deadline: Instant) {
    sleep_until(deadline).await;
    let mut state = shared.state.lock().await;
    if let Some(pending) = state.pending.take_if(|pending| pending.id == id) {
        tracing::warn!("network change not confirmed in time: rolling it back");
        // A failure is in the log.
        let _ = put_back(&shared, &pending.snapshot).await;
    }
}

async fn put_back(
    shared: &ConfiguratorState,
    snapshot: &snapshot::NetworkSnapshot,
) -> Result<(), NetworkError> {
    let restored = restore::run(snapshot, &shared.system).await;
    match &restored {
        Ok(()) => tracing::info!("network restored"),
        Err(error) => {
            tracing::error!(error = error_chain(error), "failed to restore the network");
        }
    }
    if let Err(error) = shared.journal.clear() {
        tracing::error!(error = error_chain(&error), "failed to remove the journal");
    }
    restored
}

/// Handles a change left over from a previous agent: waits for its confirmation, or undoes it.
async fn left_over(shared: Arc<ConfiguratorState>, mut state: OwnedMutexGuard<ChangeState>) {
    let Some(left) = shared.journal.read() else { return };
    match left.pending {
        Some((id, left_for)) if !left_for.is_zero() => {
            tracing::info!("network change still waits for its confirmation");
            let deadline = Instant::now() + left_for;
            state.pending = Some(UnconfirmedChange::resumed(id.clone(), deadline, left.snapshot));
            drop(state);
            crate::task::spawn(expire(shared, id, deadline));
        }
        _ => {
            tracing::warn!("found an unfinished network change: rolling it back");
            let _ = put_back(&shared, &left.snapshot).await;
        }
    }
}
