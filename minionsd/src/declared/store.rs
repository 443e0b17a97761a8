//! Store of the declared state: one thread writes, all tasks read.
//!
//! The thread plans each change against the current state, writes it to the database, and only then changes the state in
//! memory. So readers see nothing that is not in the database, and changes never overlap.

use super::database::StateDatabase;
use super::open_error::StoreOpenError;
use minions_declare::{DeclareError, DeclaredState, Plan};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

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
    /// The database did not answer in time. The change may still be made.
    #[error(
        "the database of the declared state did not answer within 10 s; the change may still be made"
    )]
    Slow,
    /// The daemon stops.
    #[error("minionsd is stopping")]
    Stopped,
}

/// Message to the thread.
enum WriterMessage {
    /// Plan and make a change.
    Change(Box<dyn FnOnce(&mut StateWriter) + Send>),
    /// Close the database and end.
    Close,
}

/// Handle of the declared state. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DeclaredStore {
    state: Arc<RwLock<DeclaredState>>,
    work: mpsc::Sender<WriterMessage>,
    revision: watch::Receiver<u64>,
    is_persistent: bool,
}

/// The thread that writes.
pub(crate) struct StoreThread {
    thread: JoinHandle<()>,
    work: mpsc::Sender<WriterMessage>,
}

struct StateWriter {
    database: Option<StateDatabase>,
    state: Arc<RwLock<DeclaredState>>,
    revision: watch::Sender<u64>,
    is_failing: bool,
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
        let (work, mut queue) = mpsc::channel::<WriterMessage>(QUEUED);
        let is_persistent = database.is_some();
        let mut writer = StateWriter {
            database,
            state: Arc::clone(&state),
            revision: sender,
            is_failing: false,
        };
        let thread = std::thread::Builder::new().name("declared-state".into()).spawn(move || {
            while let Some(WriterMessage::Change(change)) = queue.blocking_recv() {
                change(&mut writer);
            }
        });
        let thread = thread.map_err(|source| StoreOpenError::File {
            path: path.unwrap_or_else(|| Path::new("none")).to_owned(),
            source,
        })?;
        let thread = StoreThread { thread, work: work.clone() };
        Ok((Self { state, work, revision, is_persistent }, thread))
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
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move |writer: &mut StateWriter| {
            // The caller may have gone.
            let _ = answer.send(writer.change(plan));
        });
        let change = async {
            self.work.send(WriterMessage::Change(work)).await.map_err(|_| StoreError::Stopped)?;
            answered.await.map_err(|_| StoreError::Stopped)?
        };
        timeout(PATIENCE, change).await.unwrap_or(Err(StoreError::Slow))
    }
}

impl StateWriter {
    fn change<T>(
        &mut self,
        plan: impl FnOnce(&DeclaredState) -> Result<(Plan, T), DeclareError>,
    ) -> Result<T, StoreError> {
        let planned = plan(&self.state.read().unwrap_or_else(PoisonError::into_inner));
        let (plan, result) = planned?;
        if plan.changes.is_empty() {
            return Ok(result);
        }
        if let Some(database) = &mut self.database {
            let written = database.write(&plan);
            self.report(written.as_ref().err());
            written.map_err(|error| StoreError::Unwritable(error.to_string()))?;
        }
        let revision = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.commit(&plan);
            state.revision()
        };
        self.revision.send_if_modified(|last| std::mem::replace(last, revision) != revision);
        Ok(result)
    }

    /// Logs the beginning and the end of a time in which the database cannot be written.
    fn report(&mut self, error: Option<&rusqlite::Error>) {
        match (self.is_failing, error) {
            (false, Some(error)) => {
                tracing::error!(%error, "the database of the declared state cannot be written");
            }
            (true, None) => tracing::info!("the database of the declared state is written again"),
            (true, Some(_)) | (false, None) => {}
        }
        self.is_failing = error.is_some();
    }
}

impl StoreThread {
    /// Closes the database after the changes that wait, and ends the thread. A disk that hangs ends the wait after some
    /// seconds.
    pub(crate) async fn close(self) {
        let Self { thread, work } = self;
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
