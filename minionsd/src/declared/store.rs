//! Store of the declared state: one thread writes, all tasks read.
//!
//! The thread plans each change against the current state, writes it to the database, and only then changes the state in
//! memory. So readers see nothing that is not in the database, and changes never overlap.

use super::database::StateDatabase;
use super::open_error::StoreOpenError;
use super::writer::{StateWriter, WriterMessage};
use minions_declare::{DeclareError, DeclaredState, Plan};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// Changes that wait for the thread.
const QUEUED: usize = 64;

/// Time that a caller waits for its change. A disk that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Failure of a change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The change is refused. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] DeclareError),
    /// The database cannot be written. Nothing was changed.
    #[error("the database of the declared state cannot be written ({0}); nothing was changed")]
    Unwritable(String),
    /// The database did not answer in time.
    #[error("the database of the declared state did not answer within 10 s; {}", left(*.queued))]
    Slow {
        /// True if the change waits for the thread, or is being made.
        queued: bool,
    },
    /// The change could not be planned. Nothing was changed.
    #[error("bug in minionsd: the change could not be planned; see the log of minionsd")]
    PlanPanicked,
    /// The thread has ended although the daemon does not stop.
    #[error(
        "the declared state cannot be changed until minionsd is restarted, because of a bug (see its log); {}",
        left(*.queued)
    )]
    WriterEnded {
        /// True if the change waited for the thread, or was being made.
        queued: bool,
    },
    /// The daemon stops.
    #[error("minionsd is stopping")]
    Stopped,
}

fn left(queued: bool) -> &'static str {
    if queued { "the change may still be made" } else { "nothing was changed" }
}

impl StoreError {
    /// Reports whether the change may have been made, or may still be made.
    pub(crate) fn may_have_executed(&self) -> bool {
        match self {
            Self::Slow { queued } | Self::WriterEnded { queued } => *queued,
            Self::Refused(_) | Self::Unwritable(_) | Self::PlanPanicked | Self::Stopped => false,
        }
    }
}

/// Handle of the declared state. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DeclaredStore {
    state: Arc<RwLock<DeclaredState>>,
    work: mpsc::Sender<WriterMessage>,
    revision: watch::Receiver<u64>,
    health: Arc<WriterHealth>,
    is_persistent: bool,
}

/// Condition of the thread, for all tasks.
#[derive(Debug, Default)]
pub(super) struct WriterHealth {
    /// True from the time at which the daemon closes the database.
    closing: AtomicBool,
    /// True while the database cannot be written.
    pub(super) failing: AtomicBool,
}

/// The thread that writes.
pub(crate) struct StoreThread {
    thread: JoinHandle<()>,
    work: mpsc::Sender<WriterMessage>,
    health: Arc<WriterHealth>,
}

impl fmt::Debug for StoreThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreThread").finish_non_exhaustive()
    }
}

impl fmt::Debug for DeclaredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeclaredStore").field("is_persistent", &self.is_persistent).finish()
    }
}

impl DeclaredStore {
    /// Opens the database at `path`; without a path, the state is kept in memory.
    ///
    /// # Errors
    ///
    /// [`StoreOpenError`]: the database is damaged, newer, in use, or cannot be written.
    pub(crate) fn open(path: Option<&Path>) -> Result<(Self, StoreThread), StoreOpenError> {
        let mut state = DeclaredState::default();
        let database = match path {
            None => None,
            Some(path) => {
                let (database, all) = StateDatabase::open(path)?;
                state.commit(&all);
                Some(database)
            }
        };
        let (sender, revision) = watch::channel(state.revision());
        let state = Arc::new(RwLock::new(state));
        let health = Arc::new(WriterHealth::default());
        let is_failing = database.as_ref().is_some_and(|database| !database.is_writable());
        health.failing.store(is_failing, Ordering::Relaxed);
        let (work, queue) = mpsc::channel::<WriterMessage>(QUEUED);
        let is_persistent = database.is_some();
        let writer = StateWriter::new(database, Arc::clone(&state), sender, Arc::clone(&health));
        let thread = std::thread::Builder::new().name("declared-state".into());
        let thread = thread.spawn(move || writer.run(queue));
        let thread = thread.map_err(|source| StoreOpenError::File {
            path: path.unwrap_or_else(|| Path::new("none")).to_owned(),
            source,
        })?;
        let thread = StoreThread { thread, work: work.clone(), health: Arc::clone(&health) };
        Ok((Self { state, work, revision, health, is_persistent }, thread))
    }

    /// Reports whether the state outlives the daemon.
    pub(crate) fn is_persistent(&self) -> bool {
        self.is_persistent
    }

    /// Returns the revision of the state, which changes with each pool and declaration.
    pub(crate) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Reads the state. Writers wait meanwhile, so `read` must be short.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&DeclaredState) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Plans a change against the current state, writes it, and makes it.
    ///
    /// Not undone if the future is dropped: the change is then made, or not.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&DeclaredState) -> Result<(Plan, T), DeclareError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.change_and_read(plan, |planned, _| planned).await
    }

    /// Plans a change against the current state, writes it, makes it, and reads the state before any other change.
    ///
    /// Not undone if the future is dropped: the change is then made, or not.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(crate) async fn change_and_read<P: 'static, T: Send + 'static>(
        &self,
        plan: impl FnOnce(&DeclaredState) -> Result<(Plan, P), DeclareError> + Send + 'static,
        read: impl FnOnce(P, &DeclaredState) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        let (answer, answered) = oneshot::channel();
        let change = WriterMessage::Change(Box::new(move |writer: &mut StateWriter| {
            // The caller may have gone.
            let _ = answer.send(writer.change(plan, read));
        }));
        match timeout_at(deadline, self.work.send(change)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.ended(false)),
            Err(_) => return Err(StoreError::Slow { queued: false }),
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.ended(true)),
            Err(_) => Err(StoreError::Slow { queued: true }),
        }
    }

    /// Returns the error of a change after the end of the thread.
    fn ended(&self, queued: bool) -> StoreError {
        if self.health.closing.load(Ordering::Relaxed) {
            // Changes after the request to close are not made.
            return StoreError::Stopped;
        }
        StoreError::WriterEnded { queued }
    }

    /// Returns the number of changes that wait for the thread.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        QUEUED - self.work.capacity()
    }

    /// Returns the reason why changes are refused, for the operator of the host; `None` if they are not.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.work.is_closed() && !self.health.closing.load(Ordering::Relaxed) {
            return Some(
                "the declared state cannot be changed until minionsd is restarted, because of a bug: see its log",
            );
        }
        let is_failing = self.health.failing.load(Ordering::Relaxed);
        is_failing.then_some(
            "the database of the declared state cannot be written: changes of it are refused until it can",
        )
    }
}

impl StoreThread {
    /// Closes the database after the changes that wait, and ends the thread. A disk that hangs ends the wait after some
    /// seconds.
    pub(crate) async fn close(self) {
        let Self { thread, work, health } = self;
        health.closing.store(true, Ordering::Relaxed);
        let joined = async {
            // Fails only if the thread has ended.
            let _ = work.send(WriterMessage::Close).await;
            tokio::task::spawn_blocking(move || thread.join()).await
        };
        if timeout(PATIENCE, joined).await.is_err() {
            tracing::warn!("stopped before the database of the declared state was closed");
        }
    }
}

#[cfg(test)]
mod tests;
