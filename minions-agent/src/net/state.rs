//! State of the network configurator.

use super::dns::SystemPaths;
use super::journal::ChangeJournal;
use super::pending::UnconfirmedChange;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Parts that all tasks of the configurator share.
#[derive(Debug)]
pub(super) struct ConfiguratorState {
    pub(super) system: SystemPaths,
    pub(super) journal: ChangeJournal,
    pub(super) state: Arc<Mutex<ChangeState>>,
}

/// State that is locked during a change.
#[derive(Debug, Default)]
pub(super) struct ChangeState {
    pub(super) pending: Option<UnconfirmedChange>,
    /// Id of the last confirmed change, so that a repeated confirmation succeeds.
    pub(super) confirmed: Option<String>,
}
