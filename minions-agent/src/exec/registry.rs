//! Registry of the agent's execs, by their ids.

use super::error::ExecError;
use super::object::Exec;
use crate::lock::lock;
use minions_proto::message::ExecId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Limit of execs that are kept after their end.
const MAX_ENDED: usize = 256;

/// Limit of further execs that are kept because leftover processes run: every process of an exec must be
/// findable. A list on the wire has room for 1024 execs.
const MAX_LEFT: usize = 512;

/// Limit of output kept by all ended execs together, in bytes.
const MAX_ENDED_MEMORY: usize = 16 * 1024 * 1024;

/// Time for which an exec is kept after its end.
const KEEP: Duration = Duration::from_hours(1);

/// Result of starting an exec, shared by all requests for the same id that arrived in the meantime.
pub(super) type StartResult = Result<Arc<Exec>, ExecError>;

/// All execs by id: starting, running, and ended ones that are kept.
#[derive(Debug, Default)]
pub(super) struct ExecRegistry {
    entries: Mutex<HashMap<ExecId, RegistryEntry>>,
}

#[derive(Debug)]
struct RegistryEntry {
    /// Hash of the request: an id with a different one is a conflict. `None` for the program of an earlier agent,
    /// whose request is unknown.
    fingerprint: Option<u64>,
    stage: ExecStage,
}

#[derive(Debug)]
enum ExecStage {
    Starting(watch::Receiver<Option<StartResult>>),
    Running(Arc<Exec>),
    Ended(Arc<Exec>, Instant),
    /// Ended and not needed any more, but kept because leftover processes run.
    Left(Arc<Exec>, Instant),
}

/// Result of looking up an id for a start.
pub(super) enum IdLookup {
    /// The id was free: the caller must start the program, and send the result to all who wait for it.
    New(watch::Sender<Option<StartResult>>),
    /// The exec exists, or is being started.
    Known(FoundExec),
}

/// An exec that was found: started, or being started.
#[derive(Debug)]
pub(super) enum FoundExec {
    Ready(Arc<Exec>),
    Starting(watch::Receiver<Option<StartResult>>),
}

impl FoundExec {
    /// Waits until the exec has been started, and returns it.
    pub(super) async fn begun(self) -> StartResult {
        match self {
            Self::Ready(exec) => Ok(exec),
            Self::Starting(mut begun) => match begun.wait_for(Option::is_some).await {
                Ok(begun) => begun.clone().unwrap_or_else(|| Err(ExecError::Interrupted)),
                // The task that starts it is gone: the agent is shutting down.
                Err(_) => Err(ExecError::Interrupted),
            },
        }
    }
}

impl ExecRegistry {
    fn entries(&self) -> MutexGuard<'_, HashMap<ExecId, RegistryEntry>> {
        lock(&self.entries)
    }

    /// Finds `id`, or reserves it for the caller.
    pub(super) fn find_or_begin(
        &self,
        id: &ExecId,
        fingerprint: u64,
    ) -> Result<IdLookup, ExecError> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get(id) {
            if entry.fingerprint.is_some_and(|known| known != fingerprint) {
                return Err(ExecError::Conflict);
            }
            return Ok(IdLookup::Known(entry.known()));
        }
        let (sender, receiver) = watch::channel(None);
        let entry =
            RegistryEntry { fingerprint: Some(fingerprint), stage: ExecStage::Starting(receiver) };
        entries.insert(id.clone(), entry);
        Ok(IdLookup::New(sender))
    }

    /// Reports whether an id is free.
    pub(super) fn is_free(&self, id: &ExecId) -> bool {
        !self.entries().contains_key(id)
    }

    /// Adds the exec of an earlier agent's program. Returns false if there is no room for it.
    pub(super) fn adopt(&self, exec: Exec) -> bool {
        let mut entries = self.entries();
        if entries.len() >= MAX_LEFT {
            return false;
        }
        let id = exec.id.clone();
        let stage = ExecStage::Ended(Arc::new(exec), Instant::now());
        entries.insert(id, RegistryEntry { fingerprint: None, stage });
        true
    }

    /// Finds the exec with this id.
    pub(super) fn find(&self, id: &ExecId) -> Result<FoundExec, ExecError> {
        self.sweep();
        self.entries().get(id).map(RegistryEntry::known).ok_or_else(|| ExecError::Gone(id.clone()))
    }

    /// Records that the exec has been started.
    pub(super) fn running(&self, exec: &Arc<Exec>) {
        if let Some(entry) = self.entries().get_mut(&exec.id) {
            entry.stage = ExecStage::Running(Arc::clone(exec));
        }
    }

    /// Records that the exec has ended, and keeps it for a while.
    pub(super) fn ended(&self, exec: &Arc<Exec>) {
        if let Some(entry) = self.entries().get_mut(&exec.id)
            && entry.exec().is_some_and(|found| Arc::ptr_eq(found, exec))
        {
            entry.stage = ExecStage::Ended(Arc::clone(exec), Instant::now());
        }
        self.sweep();
    }

    /// Records that the exec has ended and is not needed any more: it is forgotten once no leftover process runs.
    pub(super) fn over(&self, exec: &Arc<Exec>) {
        if exec.left_running().is_none() {
            return self.forget(exec);
        }
        exec.forget_output();
        if let Some(entry) = self.entries().get_mut(&exec.id)
            && entry.exec().is_some_and(|found| Arc::ptr_eq(found, exec))
        {
            entry.stage = ExecStage::Left(Arc::clone(exec), Instant::now());
        }
        self.sweep();
    }

    /// Releases an id whose program did not start.
    pub(super) fn forget_start(&self, id: &ExecId) {
        self.entries().remove(id);
    }

    /// Removes this exec. Another exec that has the same id by now stays.
    pub(super) fn forget(&self, exec: &Arc<Exec>) {
        let mut entries = self.entries();
        let found = entries.get(&exec.id).and_then(RegistryEntry::exec);
        if found.is_some_and(|found| Arc::ptr_eq(found, exec)) {
            entries.remove(&exec.id);
        }
    }

    /// Returns all execs that were started, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Exec>> {
        self.sweep();
        let entries = self.entries();
        let mut execs: Vec<_> = entries.values().filter_map(RegistryEntry::exec).cloned().collect();
        drop(entries);
        execs.sort_by_key(|exec| exec.started);
        execs
    }

    /// Drops ended execs, the oldest first, until the rest is within the limits. An exec with leftover processes
    /// loses only its output.
    fn sweep(&self) {
        let mut entries = self.entries();
        let mut ended: Vec<_> = entries
            .values()
            .filter_map(|entry| match &entry.stage {
                ExecStage::Ended(exec, since) => Some((*since, Arc::clone(exec), false)),
                ExecStage::Left(exec, since) => Some((*since, Arc::clone(exec), true)),
                ExecStage::Starting(_) | ExecStage::Running(_) => None,
            })
            .collect();
        // The newest first: they are kept.
        ended.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
        let (mut kept, mut memory, mut left) = (0, 0, 0);
        for (since, exec, is_left) in ended {
            if !is_left {
                (kept, memory) = (kept + 1, memory + exec.memory());
                let has_room = kept <= MAX_ENDED && memory <= MAX_ENDED_MEMORY;
                if has_room && since.elapsed() <= KEEP {
                    continue;
                }
            }
            if left < MAX_LEFT && exec.left_running().is_some() {
                left += 1;
                exec.forget_output();
            } else {
                entries.remove(&exec.id);
            }
        }
    }
}

impl RegistryEntry {
    fn known(&self) -> FoundExec {
        match &self.stage {
            ExecStage::Starting(begun) => FoundExec::Starting(begun.clone()),
            ExecStage::Running(exec) | ExecStage::Ended(exec, _) | ExecStage::Left(exec, _) => {
                FoundExec::Ready(Arc::clone(exec))
            }
        }
    }

    fn exec(&self) -> Option<&Arc<Exec>> {
        match &self.stage {
            ExecStage::Starting(_) => None,
            ExecStage::Running(exec) | ExecStage::Ended(exec, _) | ExecStage::Left(exec, _) => {
                Some(exec)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::ExecStart;

    #[test]
    fn forgetting_an_old_exec_keeps_a_new_one_with_the_same_id() {
        let registry = ExecRegistry::default();
        let id: ExecId = "same".parse().unwrap();
        let begin = || {
            assert!(matches!(registry.find_or_begin(&id, 0), Ok(IdLookup::New(_))));
            let exec = Arc::new(Exec::new(id.clone(), 1, &ExecStart::default()));
            registry.running(&exec);
            exec
        };
        let old = begin();
        registry.forget(&old);
        let new = begin();
        // A second removal of the old exec, and its end.
        registry.forget(&old);
        registry.ended(&old);
        assert!(
            matches!(registry.find(&id), Ok(FoundExec::Ready(found)) if Arc::ptr_eq(&found, &new))
        );
    }
}
