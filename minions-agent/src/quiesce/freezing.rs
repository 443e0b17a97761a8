//! Steps of a quiesce that wait in the kernel: opening the mount points, sync and freeze.
//!
//! Each runs in a thread of its own, which cannot be ended. If a step must be stopped, its thread is left to end by
//! itself, and the next quiesce is refused until then: threads that wait must not add up.

use super::error::{QuiesceFailure, QuiesceStep};
use super::frozen_set::{self, FreezeError, FreezeState, FrozenSet, MAX_FROZEN};
use super::keeper::FreezeKeeper;
use super::mounts::{self, FreezableMount, GuestMounts};
use super::requests::{QuiesceRequests, StopReason};
use crate::lock::lock;
use crate::task::spawn_blocking;
use minions_proto::message::MAX_TTL_MS;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Time to open all mount points. It takes longer only if a file system does not respond.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// Limit of the steps that the end of the lease stops.
const MAX_LEASE: Duration = Duration::from_millis(MAX_TTL_MS);

/// Time for a freeze that was stopped to end and to be undone, before the failure is reported.
const UNDO_DEADLINE: Duration = Duration::from_secs(5);

/// Threads of steps that were stopped, each with a description.
#[derive(Default)]
pub(super) struct StuckThreads(Vec<(String, JoinHandle<()>)>);

impl StuckThreads {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Describes the threads.
    pub(super) fn described(&self) -> String {
        self.0.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Waits until all threads have ended. Cancel safe.
    pub(super) async fn ended(&mut self) {
        while let Some((_, thread)) = self.0.last_mut() {
            let _ = thread.await;
            self.0.pop();
        }
    }
}

/// Frozen file systems with their keeper.
#[derive(Debug, Clone)]
pub(super) struct FrozenMounts {
    pub(super) set: Arc<FrozenSet>,
    pub(super) keeper: Arc<FreezeKeeper>,
}

/// End of a thread without its result.
enum ThreadFailure {
    Stopped(StopReason),
    Slow,
    Panicked,
}

/// Runs the steps, for as long as the requests of the quiesce permit.
pub(super) struct BlockingSteps<'a> {
    pub(super) requests: &'a mut QuiesceRequests,
    /// Timer of the lease, once it has begun.
    pub(super) lease: Option<&'a AsyncFd<OwnedFd>>,
    pub(super) stuck: &'a mut StuckThreads,
}

impl BlockingSteps<'_> {
    /// Runs a step for at most `limit`; `described` describes it if it must be stopped.
    async fn in_thread<T: Send + 'static>(
        &mut self,
        limit: Duration,
        described: impl FnOnce() -> String,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ThreadFailure> {
        let mut thread = spawn_blocking(step);
        let stopped = self.requests.stopped(self.lease);
        let failure = tokio::select! {
            biased;
            reason = stopped => ThreadFailure::Stopped(reason),
            done = &mut thread => return done.map_err(|_| ThreadFailure::Panicked),
            () = sleep(limit) => ThreadFailure::Slow,
        };
        self.stuck.0.push((described(), crate::task::spawn(async move { drop(thread.await) })));
        Err(failure)
    }

    /// Opens the mount points of the file systems to sync and to freeze.
    pub(super) async fn open(&mut self, freeze_fs: bool) -> Result<Arc<FrozenSet>, QuiesceFailure> {
        let step = if freeze_fs { QuiesceStep::Freeze } else { QuiesceStep::Sync };
        let current = Arc::new(Mutex::new(String::new()));
        let opening = Arc::clone(&current);
        let open = move || {
            open(freeze_fs, |mount| *lock(&opening) = frozen_set::named(mount)).map(Arc::new)
        };
        let described = || format!("opening {}", lock(&current));
        let opened = self.in_thread(OPEN_DEADLINE, described, open).await;
        let slow = || QuiesceFailure::SlowOpen { step, mount: lock(&current).clone() };
        opened.map_err(|failure| failure.at(step, slow))?
    }

    pub(super) async fn sync(&mut self, set: &Arc<FrozenSet>) -> Result<(), QuiesceFailure> {
        let syncing = Arc::clone(set);
        let described = || format!("the sync of {}", set.current());
        let synced = self.in_thread(MAX_LEASE, described, move || syncing.sync()).await;
        if synced.is_err() {
            // The thread ends after the file system that it syncs.
            set.thaw();
        }
        let slow = || QuiesceFailure::SlowSync(set.current());
        synced
            .map_err(|failure| failure.at(QuiesceStep::Sync, slow))?
            .map_err(QuiesceFailure::Freeze)
    }

    /// Starts the keeper, and freezes the file systems. If this fails, they are thawed, except one whose freeze cannot be
    /// ended: the thread of the freeze thaws it.
    pub(super) async fn freeze(
        &mut self,
        set: Arc<FrozenSet>,
        program: PathBuf,
        until: Duration,
    ) -> Result<FrozenMounts, QuiesceFailure> {
        let opened = Arc::clone(&set);
        let start = move || FreezeKeeper::start(&program, &opened.descriptors(), until);
        let described = || "the start of the keeper".into();
        let keeper = self.in_thread(MAX_LEASE, described, start).await;
        let slow = || QuiesceFailure::SlowKeeper;
        let keeper = keeper.map_err(|failure| failure.at(QuiesceStep::Keeper, slow))?;
        let keeper = Arc::new(keeper.map_err(QuiesceFailure::Keeper)?);
        let frozen = FrozenMounts { set, keeper };
        let described = || format!("the freeze of {}", frozen.set.current());
        let step = freeze_all(frozen.clone());
        let failure = match self.in_thread(MAX_LEASE, described, step).await {
            Ok(Ok(())) => none_frozen(&frozen.set),
            Ok(Err(error)) => Some(QuiesceFailure::Freeze(error)),
            Err(failure) => {
                let mount = frozen.set.current();
                let set = Arc::clone(&frozen.set);
                let _ = spawn_blocking(move || drop(set.thaw())).await;
                let is_undone = timeout(UNDO_DEADLINE, self.stuck.ended()).await.is_ok();
                let slow = || QuiesceFailure::SlowFreeze { mount, is_undone };
                Some(failure.at(QuiesceStep::Freeze, slow))
            }
        };
        match failure {
            None => Ok(frozen),
            Some(failure) => {
                // Waits for the end of the keeper.
                let _ = spawn_blocking(move || drop(frozen)).await;
                Err(failure)
            }
        }
    }
}

impl ThreadFailure {
    /// Returns the failure of a step, which is `slow` if its lease has ended.
    fn at(self, step: QuiesceStep, slow: impl FnOnce() -> QuiesceFailure) -> QuiesceFailure {
        match self {
            Self::Slow | Self::Stopped(StopReason::LeaseOver) => slow(),
            Self::Stopped(reason) => QuiesceFailure::stopped(step, reason),
            Self::Panicked => QuiesceFailure::Interrupted,
        }
    }
}

/// Opens the file systems. Blocks, possibly for long.
fn open(
    freeze_fs: bool,
    opening: impl FnMut(&FreezableMount),
) -> Result<FrozenSet, QuiesceFailure> {
    let guest = mounts::read().map_err(QuiesceFailure::Mounts)?;
    let GuestMounts { freezable, served, root_type } = guest;
    match freezable.len() {
        0 if freeze_fs => return Err(QuiesceFailure::NothingToFreeze { root_type }),
        count if freeze_fs && count > MAX_FROZEN => return Err(QuiesceFailure::TooMany(count)),
        _ => {}
    }
    FrozenSet::open(freezable, served, opening).map_err(QuiesceFailure::Freeze)
}

/// Returns the step that freezes the file systems, and thaws them if one fails or the quiesce ends meanwhile.
fn freeze_all(frozen: FrozenMounts) -> impl FnOnce() -> Result<(), FreezeError> {
    move || {
        let FrozenMounts { set, keeper } = frozen;
        let done = set.freeze(|number, state: FreezeState| keeper.mark(number, state));
        if done.is_err() {
            set.thaw();
        }
        done
    }
}

fn none_frozen(set: &FrozenSet) -> Option<QuiesceFailure> {
    let (members, refused) = set.divided();
    if !members.is_empty() {
        return None;
    }
    let refused: Vec<_> = refused.into_iter().map(frozen_set::named).collect();
    Some(QuiesceFailure::NoneFrozen(refused.join(", ")))
}
