//! The guest's network, over netlink.
//!
//! ```text
//!  plan (checked) ─▶ desired ─▶ snapshot, difference ─▶ apply ─▶ verify ─▶ commit
//!                                      │                  └───┬─────┘        │ confirm_within_ms
//!                                 none: done             restore ◀────── no confirmation
//! ```
//!
//! Each step of [`apply`] makes its part of the kernel's state what the plan says, whatever it was before:
//! doing it twice is doing it once. When one fails, or what shall hold afterwards doesn't, everything is
//! put back from the snapshot. One change at a time.
//!
//! The snapshot is also in a journal, in `/run`, for as long as it may be needed: an agent that starts
//! and finds one puts back what was half done, or goes on waiting for the confirmation.

mod address;
mod apply;
mod arrival;
mod change;
mod checks;
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
mod tool;
mod verify;

pub(crate) use error::{ChangeError, NetworkError};

use dns::Places;
use journal::Journal;
use minions_proto::message::{NetworkChanged, NetworkPlan, NetworkState, PendingChange};
use pending::Pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until};

/// Configures the network, one change after the other.
#[derive(Debug)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    places: Places,
    journal: Journal,
    turn: Arc<Mutex<Turn>>,
}

/// Whose turn it is may look at this.
#[derive(Debug, Default)]
struct Turn {
    pending: Option<Pending>,
    /// The last change that was confirmed, for who asks again.
    confirmed: Option<String>,
}

impl Network {
    /// `resolv_conf` is what name servers are written to where no service has them; `run` is `/run`.
    /// With `resume`, a change that an agent before this one has left is seen to.
    pub(crate) fn new(resolv_conf: PathBuf, run: &Path, resume: bool) -> Self {
        let shared = Arc::new(Shared {
            places: Places { resolv_conf, run: run.to_owned() },
            journal: Journal::new(run),
            turn: Arc::default(),
        });
        // Nobody else has it yet: whatever comes, comes after this.
        if resume && let Ok(turn) = Arc::clone(&shared.turn).try_lock_owned() {
            tokio::spawn(left_over(Arc::clone(&shared), turn));
        }
        Self { shared }
    }

    /// Makes the network what `plan` says, or leaves it as it is. An interface that isn't there is given
    /// a few seconds to come.
    ///
    /// Dropping the future doesn't stop a change that has begun.
    pub(crate) async fn configure(&self, plan: NetworkPlan) -> Result<NetworkChanged, ChangeError> {
        // Before its turn: who confirms, or a deadline, doesn't wait for a card.
        arrival::wait(&plan, &self.shared.places.run).await;
        let turn = Arc::clone(&self.shared.turn).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        let work = tokio::spawn(in_turn(shared, turn, plan));
        work.await.unwrap_or_else(|_| Err(ChangeError::interrupted()))
    }

    /// Lets a change stay. Once more is as good as once.
    pub(crate) async fn confirm(&self, id: &str) -> Result<(), NetworkError> {
        let mut turn = self.shared.turn.lock().await;
        if turn.confirmed.as_deref() == Some(id) {
            return Ok(());
        }
        if turn.pending.as_ref().is_none_or(|pending| pending.id != id) {
            return Err(NetworkError::ChangeGone);
        }
        // Gone first: if the agent ended in between, the next one must not put it back.
        self.shared.journal.clear()?;
        turn.pending = None;
        turn.confirmed = Some(id.to_owned());
        tracing::info!("network change confirmed");
        Ok(())
    }

    /// As it is now.
    pub(crate) async fn read(&self) -> Result<NetworkState, NetworkError> {
        let pending = match self.shared.turn.try_lock() {
            Ok(turn) => turn.pending.as_ref().map(Pending::shown),
            // Something is being done; what will come of it nobody knows yet.
            Err(_) => None,
        };
        reading::read(&self.shared.places, pending).await
    }
}

async fn in_turn(
    shared: Arc<Shared>,
    mut turn: OwnedMutexGuard<Turn>,
    plan: NetworkPlan,
) -> Result<NetworkChanged, ChangeError> {
    if let Some(pending) = turn.pending.as_ref().filter(|_| !plan.dry_run) {
        return pending.asked_again(&plan);
    }
    let confirm_within = plan.confirm_within;
    let (mut reply, snapshot) = change::run(&plan, &shared.places, &shared.journal).await?;
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
    let pending = PendingChange { id: id.clone(), expires_in_ms: journal::milliseconds(within) };
    reply.message = format!("network configured; put back in {within:?} unless confirmed");
    reply.pending = Some(pending);
    turn.pending = Some(Pending {
        id: id.clone(),
        deadline,
        plan: Some(plan),
        reply: reply.clone(),
        snapshot,
    });
    drop(turn);
    tokio::spawn(expire(shared, id, deadline));
    Ok(reply)
}

/// Puts the change back at its deadline, unless it was confirmed.
async fn expire(shared: Arc<Shared>, id: String, deadline: Instant) {
    sleep_until(deadline).await;
    let mut turn = shared.turn.lock().await;
    if let Some(pending) = turn.pending.take_if(|pending| pending.id == id) {
        tracing::warn!("network change not confirmed in time: putting it back");
        put_back(&shared, &pending.snapshot).await;
    }
}

async fn put_back(shared: &Shared, snapshot: &snapshot::Snapshot) {
    match snapshot.restore(&shared.places).await {
        Ok(()) => tracing::info!("network as it was before"),
        Err(error) => tracing::error!(error = crate::ops::chain(&error), "network not put back"),
    }
    if let Err(error) = shared.journal.clear() {
        tracing::error!(error = crate::ops::chain(&error), "journal not removed");
    }
}

/// What an agent before this one was at.
async fn left_over(shared: Arc<Shared>, mut turn: OwnedMutexGuard<Turn>) {
    let Some(left) = shared.journal.read() else { return };
    match left.pending {
        Some((id, left_for)) if !left_for.is_zero() => {
            tracing::info!("network change still waits for its confirmation");
            let deadline = Instant::now() + left_for;
            turn.pending = Some(Pending::resumed(id.clone(), deadline, left.snapshot));
            drop(turn);
            tokio::spawn(expire(shared, id, deadline));
        }
        _ => {
            tracing::warn!("network change was left unfinished: putting it back");
            put_back(&shared, &left.snapshot).await;
        }
    }
}
