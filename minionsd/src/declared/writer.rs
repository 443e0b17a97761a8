//! Thread that changes the declared state.

use super::database::{StateDatabase, WriteError};
use super::store::{StoreError, WriterHealth};
use minions_declare::{DeclareError, DeclaredState, Plan};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{mpsc, watch};

/// Message to the thread.
pub(super) enum WriterMessage {
    /// Plan and make a change.
    Change(Box<dyn FnOnce(&mut StateWriter) + Send>),
    /// Close the database and end.
    Close,
}

/// State of the thread.
pub(super) struct StateWriter {
    database: Option<StateDatabase>,
    state: Arc<RwLock<DeclaredState>>,
    revision: watch::Sender<u64>,
    health: Arc<WriterHealth>,
}

impl StateWriter {
    pub(super) fn new(
        database: Option<StateDatabase>,
        state: Arc<RwLock<DeclaredState>>,
        revision: watch::Sender<u64>,
        health: Arc<WriterHealth>,
    ) -> Self {
        Self { database, state, revision, health }
    }

    /// Makes changes until it is told to close. A panic while a change is made ends the thread, because the state in
    /// memory may differ from the database then; it can still be read.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<WriterMessage>) {
        let work = AssertUnwindSafe(|| {
            while let Some(WriterMessage::Change(change)) = queue.blocking_recv() {
                change(&mut self);
            }
        });
        if catch_unwind(work).is_err() {
            tracing::error!(
                "the thread that changes the declared state panicked: changes are refused until minionsd is restarted"
            );
        }
    }

    pub(super) fn change<P, T>(
        &mut self,
        plan: impl FnOnce(&DeclaredState) -> Result<(Plan, P), DeclareError>,
        read: impl FnOnce(P, &DeclaredState) -> T,
    ) -> Result<T, StoreError> {
        let planned = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            // A plan changes nothing, so a panic loses nothing.
            catch_unwind(AssertUnwindSafe(|| plan(&state)))
        };
        let (plan, planned) = planned.map_err(|_| StoreError::PlanPanicked)??;
        if !plan.changes.is_empty() {
            self.make(&plan)?;
        }
        Ok(read(planned, &self.state.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn make(&mut self, plan: &Plan) -> Result<(), StoreError> {
        if let Some(database) = &mut self.database {
            let written = database.write(plan);
            self.report(written.as_ref().err());
            written.map_err(|error| StoreError::Unwritable(error.to_string()))?;
        }
        let revision = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.commit(plan);
            state.revision()
        };
        self.revision.send_if_modified(|last| std::mem::replace(last, revision) != revision);
        Ok(())
    }

    /// Logs the beginning and the end of a time in which the database cannot be written.
    fn report(&self, error: Option<&WriteError>) {
        let was_failing = self.health.failing.swap(error.is_some(), Ordering::Relaxed);
        match (was_failing, error) {
            (false, Some(error)) => {
                tracing::error!(%error, "the database of the declared state cannot be written");
            }
            (true, None) => tracing::info!("the database of the declared state is written again"),
            (true, Some(_)) | (false, None) => {}
        }
    }
}
