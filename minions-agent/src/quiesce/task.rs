//! The task that owns one quiesce, from its hooks to its end.

use super::error::{QuiesceError, QuiesceFailure};
use super::frozen_set::{self, FrozenSet, MAX_FROZEN};
use super::keeper::{FreezeKeeper, timer_at};
use super::{EndedQuiesce, QuiesceState, mounts};
use crate::boot_clock::{self, milliseconds};
use crate::error_chain;
use crate::hooks::{self, AfterFailure, HookReport, HookSettings};
use crate::lock::lock;
use crate::watched::watch;
use minions_proto::message::{HookRun, Quiesce, Quiesced, Thawed};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Time limit of one hook.
const HOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Time limit of all hooks of one directory together.
const HOOKS_DEADLINE: Duration = Duration::from_secs(60);

/// Request to end a quiesce: the channel for the reply.
pub(super) type ThawOrder = oneshot::Sender<Thawed>;

/// Channel for the result of the request to quiesce.
type BegunSender = oneshot::Sender<Result<Quiesced, QuiesceError>>;

#[derive(Debug)]
pub(super) struct QuiesceTask {
    pub(super) shared: Arc<QuiesceState>,
    pub(super) id: String,
    pub(super) call: Quiesce,
    pub(super) lease: Duration,
    pub(super) orders: mpsc::Receiver<ThawOrder>,
}

/// FrozenMounts file systems with their keeper, and the timer of the lease.
struct HeldFreeze {
    timer: AsyncFd<OwnedFd>,
    /// `None` if only synced.
    frozen: Option<FrozenMounts>,
}

#[derive(Clone)]
struct FrozenMounts {
    set: Arc<FrozenSet>,
    keeper: Arc<FreezeKeeper>,
}

/// Unregisters the quiesce when its task ends, even by a panic.
struct RegisteredQuiesce(Arc<QuiesceState>);

impl Drop for RegisteredQuiesce {
    fn drop(&mut self) {
        lock(&self.0.stage).active = None;
    }
}

impl QuiesceTask {
    pub(super) async fn run(mut self, mut begun: BegunSender) {
        let registered = RegisteredQuiesce(Arc::clone(&self.shared));
        let mut orders = Vec::new();
        let prepared = self.prepare(&mut begun, &mut orders).await;
        let started = boot_clock::now();
        let until = started + self.lease;
        let held = match prepared {
            Ok(hooks) => self.freeze(until).await.map(|held| (held, hooks)),
            Err(error) => Err(error),
        };
        let mut thawed = Vec::new();
        let mut failed = None;
        match held {
            Ok((held, hooks)) => {
                let reply = self.reply(&held, hooks, until);
                let how = match begun.send(Ok(reply)) {
                    Ok(()) => self.hold(&held, &mut orders).await,
                    Err(_) => "was thawed because its requester had left",
                };
                thawed = self.thaw(held, how).await;
                tracing::info!(id = self.id, "quiesce {how}");
            }
            Err(error) => {
                self.open_gate("failed");
                tracing::warn!(id = self.id, error = error_chain(&error), "quiesce failed");
                failed = Some((begun, error));
            }
        }
        let quiesced = boot_clock::now().saturating_sub(started);
        let hooks = self.run_hooks_after().await;
        let (id, quiesced_ms) = (self.id.clone(), milliseconds(quiesced));
        let reply = Thawed { id, quiesced_ms, thawed, hooks };
        if failed.is_none() && !orders.is_empty() {
            self.remember(&reply);
        }
        drop(registered);
        if let Some((begun, error)) = failed {
            // Fails if the requester has left.
            let _ = begun.send(Err(error));
        }
        self.answer(orders, &reply);
    }

    /// Runs the freeze hooks, unless a thaw is requested or the requester leaves.
    async fn prepare(
        &mut self,
        begun: &mut BegunSender,
        orders: &mut Vec<ThawOrder>,
    ) -> Result<Vec<HookRun>, QuiesceError> {
        let (shared, has_hooks) = (Arc::clone(&self.shared), self.call.hooks);
        let marked = spawn_blocking(move || shared.marker.set(has_hooks)).await;
        if let Err(error) = marked.map_err(io::Error::other).and_then(|marked| marked) {
            tracing::warn!(%error, "if this agent is killed, the next one will not run the thaw hooks");
        }
        if !has_hooks {
            return Ok(Vec::new());
        }
        let settings = hook_settings(&self.shared, "freeze", AfterFailure::Stop);
        let hooks = timeout(HOOKS_DEADLINE, hooks::run(&self.shared.executor, &settings));
        let reports = tokio::select! {
            order = self.orders.recv() => {
                orders.extend(order);
                return Err(QuiesceFailure::Cancelled.into());
            }
            () = begun.closed() => return Err(QuiesceFailure::Cancelled.into()),
            reports = hooks => reports,
        };
        let reports = reports
            .map_err(|_| QuiesceFailure::SlowHooks(HOOKS_DEADLINE))?
            .map_err(QuiesceFailure::Hooks)?;
        if let Some(HookReport { path, detail, .. }) = reports.iter().find(|report| !report.ok) {
            let (path, detail) = (path.clone(), detail.clone());
            return Err(QuiesceFailure::Hook { path, detail }.into());
        }
        Ok(reports.into_iter().map(on_wire).collect())
    }

    /// Refuses other requests from now on, syncs the file systems, and freezes them if requested.
    async fn freeze(&self, until: Duration) -> Result<HeldFreeze, QuiesceError> {
        let timer = timer_at(until).map_err(io::Error::from).and_then(watch);
        let timer = timer.map_err(QuiesceFailure::Timer)?;
        if let Some(active) = &mut lock(&self.shared.stage).active {
            active.until = Some(until);
        }
        tokio::select! {
            synced = spawn_blocking(rustix::fs::sync) => {
                synced.map_err(|_| QuiesceFailure::Interrupted)?;
            }
            _ = timer.readable() => return Err(QuiesceFailure::SlowSync.into()),
        }
        let frozen =
            if self.call.freeze_fs { Some(self.freeze_all(until, &timer).await?) } else { None };
        Ok(HeldFreeze { timer, frozen })
    }

    async fn freeze_all(
        &self,
        until: Duration,
        timer: &AsyncFd<OwnedFd>,
    ) -> Result<FrozenMounts, QuiesceError> {
        let program = self.shared.settings.program.clone();
        let opened = spawn_blocking(move || open_all(&program, until)).await;
        let frozen = opened.map_err(|_| QuiesceFailure::Interrupted)??;
        let freezing = frozen.clone();
        let mut freezing = spawn_blocking(move || {
            let FrozenMounts { set, keeper } = freezing;
            let done = set.freeze(|number, frozen| keeper.mark(number, frozen));
            if done.is_err() {
                set.thaw();
            }
            done
        });
        tokio::select! {
            done = &mut freezing => {
                done.map_err(|_| QuiesceFailure::Interrupted)?.map_err(QuiesceFailure::Freeze)?;
            }
            _ = timer.readable() => {
                let set = Arc::clone(&frozen.set);
                let _ = spawn_blocking(move || set.thaw()).await;
                self.open_gate("failed");
                // A freeze in progress ends when its file system is written to no more, and is undone then. Until
                // that, this quiesce is the last one: threads that wait must not add up.
                let _ = freezing.await;
                return Err(QuiesceFailure::SlowFreeze.into());
            }
        }
        let (members, refused) = frozen.set.divided();
        if members.is_empty() {
            let refused: Vec<_> = refused
                .iter()
                .map(|mount| format!("{} ({})", mount.mount_point.display(), mount.fs_type))
                .collect();
            return Err(QuiesceFailure::NoneFrozen(refused.join(", ")).into());
        }
        Ok(frozen)
    }

    fn reply(&self, held: &HeldFreeze, hooks: Vec<HookRun>, until: Duration) -> Quiesced {
        let (mut frozen, mut not_frozen) = (Vec::new(), Vec::new());
        if let Some(held) = &held.frozen {
            let (members, refused) = held.set.divided();
            frozen.extend(members.into_iter().map(mounts::FreezableMount::on_wire));
            not_frozen.extend(refused.into_iter().map(mounts::FreezableMount::on_wire));
        }
        let lease_ms = milliseconds(until.saturating_sub(boot_clock::now()));
        Quiesced { id: self.id.clone(), lease_ms, frozen, not_frozen, hooks }
    }

    /// Waits for the end of the quiesce, and returns how it ended.
    async fn hold(&mut self, held: &HeldFreeze, orders: &mut Vec<ThawOrder>) -> &'static str {
        let keeper_ended = async {
            let ended = held.frozen.as_ref().map(|frozen| frozen.keeper.ended().and_then(watch));
            match ended {
                None => std::future::pending().await,
                // Without the keeper, the end of the freeze is not certain.
                Some(Err(_)) => {}
                Some(Ok(ended)) => drop(ended.readable().await),
            }
        };
        tokio::select! {
            order = self.orders.recv() => {
                orders.extend(order);
                "was thawed on request"
            }
            _ = held.timer.readable() => "ended with its lease",
            () = keeper_ended => "ended because its keeper was ended",
        }
    }

    /// Thaws the file systems, answers other requests again, and returns the mount points.
    async fn thaw(&self, held: HeldFreeze, how: &'static str) -> Vec<String> {
        let mut thawed = Vec::new();
        if let Some(frozen) = held.frozen {
            let (members, _) = frozen.set.divided();
            thawed.extend(members.iter().map(|mount| mount.mount_point.display().to_string()));
            let set = Arc::clone(&frozen.set);
            // If no thread can be started, the set is thawed when it is dropped.
            let _ = spawn_blocking(move || set.thaw()).await;
            self.open_gate(how);
            let _ = spawn_blocking(move || drop(frozen)).await;
        }
        self.open_gate(how);
        thawed
    }

    /// Answers other requests again.
    fn open_gate(&self, how: &'static str) {
        let mut stage = lock(&self.shared.stage);
        if let Some(active) = &mut stage.active {
            active.until = None;
        }
        let (id, at) = (self.id.clone(), boot_clock::now());
        stage.ended = Some(EndedQuiesce { id, how, at, reply: None });
    }

    async fn run_hooks_after(&self) -> Vec<HookRun> {
        let hooks = if self.call.hooks { run_thaw_hooks(&self.shared).await } else { Vec::new() };
        clear_marker(&self.shared).await;
        hooks
    }

    /// Keeps the reply to a thaw for repetitions of it.
    fn remember(&self, reply: &Thawed) {
        if let Some(ended) = &mut lock(&self.shared.stage).ended {
            ended.reply = Some(reply.clone());
        }
    }

    /// Answers all thaw requests.
    fn answer(&mut self, orders: Vec<ThawOrder>, reply: &Thawed) {
        self.orders.close();
        let late = std::iter::from_fn(|| self.orders.try_recv().ok());
        for order in orders.into_iter().chain(late) {
            // Fails if the requester has left.
            let _ = order.send(reply.clone());
        }
    }
}

/// Opens the file systems to freeze and starts their keeper. Blocks.
fn open_all(program: &Path, until: Duration) -> Result<FrozenMounts, QuiesceFailure> {
    let guest = mounts::read().map_err(|error| QuiesceFailure::Mounts(io::Error::other(error)))?;
    let mounts::GuestMounts { freezable, root_type } = guest;
    match freezable.len() {
        0 => return Err(QuiesceFailure::NothingToFreeze { root_type }),
        count if count > MAX_FROZEN => return Err(QuiesceFailure::TooMany(count)),
        _ => {}
    }
    let set = FrozenSet::open(freezable).map_err(QuiesceFailure::Freeze)?;
    let keeper = FreezeKeeper::start(program, &set.descriptors(), until);
    let keeper = keeper.map_err(QuiesceFailure::Keeper)?;
    Ok(FrozenMounts { set: Arc::new(set), keeper: Arc::new(keeper) })
}

async fn clear_marker(shared: &Arc<QuiesceState>) {
    let marked = Arc::clone(shared);
    // If no thread can be started, the next agent runs the hooks again.
    let _ = spawn_blocking(move || marked.marker.clear()).await;
}

/// Ends the quiesce of an agent that was killed: thaws the file systems, which its keeper has done unless that was killed
/// too, and runs the thaw hooks.
pub(super) async fn end_leftover(shared: &Arc<QuiesceState>) {
    if shared.settings.freezes {
        let _ = spawn_blocking(thaw_all).await;
    }
    if shared.marker.has_hooks() {
        run_thaw_hooks(shared).await;
    }
    clear_marker(shared).await;
}

/// Thaws all file systems of the guest. Blocks.
fn thaw_all() {
    match mounts::read() {
        Ok(guest) => {
            guest.freezable.into_iter().rev().for_each(|mount| frozen_set::thaw_mount(&mount))
        }
        Err(error) => tracing::warn!(%error, "cannot read the mounted file systems"),
    }
}

/// Runs the thaw hooks; a failure of one does not stop the others.
async fn run_thaw_hooks(shared: &Arc<QuiesceState>) -> Vec<HookRun> {
    let settings = hook_settings(shared, "thaw", AfterFailure::Continue);
    let reports = timeout(HOOKS_DEADLINE, hooks::run(&shared.executor, &settings)).await;
    match reports {
        Ok(Ok(reports)) => reports.into_iter().map(on_wire).collect(),
        Ok(Err(error)) => vec![failed(&settings, error_chain(&error))],
        Err(_) => {
            let seconds = HOOKS_DEADLINE.as_secs();
            vec![failed(&settings, format!("did not end within {seconds} s together"))]
        }
    }
}

/// Returns the entry for hooks that failed together.
fn failed(settings: &HookSettings, detail: String) -> HookRun {
    tracing::warn!(directory = ?settings.directory, detail, "hooks failed");
    let path = settings.directory.display().to_string();
    HookRun { path, ok: false, detail, duration_ms: 0 }
}

fn hook_settings(
    shared: &QuiesceState,
    event: &'static str,
    after_failure: AfterFailure,
) -> HookSettings {
    HookSettings {
        directory: shared.settings.hook_dir.join(format!("{event}.d")),
        deadline: HOOK_DEADLINE,
        environment: [("MINIONS_EVENT".to_owned(), event.to_owned())].into(),
        after_failure,
    }
}

fn on_wire(report: HookReport) -> HookRun {
    let HookReport { path, ok, detail, duration_ms } = report;
    HookRun { path, ok, detail, duration_ms }
}
