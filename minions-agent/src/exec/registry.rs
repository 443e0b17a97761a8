//! All execs of an agent, by their ids.

use super::ExecError;
use super::object::Exec;
use minions_proto::message::ExecId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Execs that are kept after their end.
const MAX_ENDED: usize = 256;

/// Beyond those, execs that something runs on of: what runs in a guest must be found. A list has room for
/// 1024 on the wire.
const MAX_LEFT: usize = 512;

/// Output that they may keep together, in bytes.
const MAX_ENDED_MEMORY: usize = 16 * 1024 * 1024;

/// How long one is kept after its end.
const KEEP: Duration = Duration::from_hours(1);

/// What starting one came to. Shared by everybody who asked for the same id meanwhile.
pub(super) type Begun = Result<Arc<Exec>, Arc<ExecError>>;

/// The map.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Mutex<HashMap<ExecId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Of the request: the same id with another one is a mistake. An earlier agent's is not known.
    fingerprint: Option<u64>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Starting(watch::Receiver<Option<Begun>>),
    Running(Arc<Exec>),
    Ended(Arc<Exec>, Instant),
    /// Ended and wanted by nobody, but something that it left behind runs on.
    Left(Arc<Exec>, Instant),
}

/// What an id leads to.
pub(super) enum Found {
    /// Nothing: whoever asked is to start it, and tell the others.
    New(watch::Sender<Option<Begun>>),
    /// One that is there, or will be.
    Known(Known),
}

/// An exec, or the promise of one.
#[derive(Debug)]
pub(super) enum Known {
    Ready(Arc<Exec>),
    Starting(watch::Receiver<Option<Begun>>),
}

impl Known {
    /// The exec, once it has been started.
    pub(super) async fn begun(self) -> Begun {
        match self {
            Self::Ready(exec) => Ok(exec),
            Self::Starting(mut begun) => match begun.wait_for(Option::is_some).await {
                Ok(begun) => begun.clone().unwrap_or_else(|| Err(Arc::new(ExecError::Interrupted))),
                // Who was to start it is gone: the agent ends.
                Err(_) => Err(Arc::new(ExecError::Interrupted)),
            },
        }
    }
}

impl Registry {
    fn entries(&self) -> MutexGuard<'_, HashMap<ExecId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds `id`, or makes room for it.
    pub(super) fn find_or_begin(&self, id: &ExecId, fingerprint: u64) -> Result<Found, ExecError> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get(id) {
            if entry.fingerprint.is_some_and(|known| known != fingerprint) {
                return Err(ExecError::Conflict);
            }
            return Ok(Found::Known(entry.known()));
        }
        let (tell, told) = watch::channel(None);
        let entry = Entry { fingerprint: Some(fingerprint), stage: Stage::Starting(told) };
        entries.insert(id.clone(), entry);
        Ok(Found::New(tell))
    }

    /// Whether an id is free.
    pub(super) fn is_free(&self, id: &ExecId) -> bool {
        !self.entries().contains_key(id)
    }

    /// Takes in what an earlier agent has left. False if there is no room for more.
    pub(super) fn adopt(&self, exec: Exec) -> bool {
        let mut entries = self.entries();
        if entries.len() >= MAX_LEFT {
            return false;
        }
        let id = exec.id.clone();
        let stage = Stage::Ended(Arc::new(exec), Instant::now());
        entries.insert(id, Entry { fingerprint: None, stage });
        true
    }

    /// The exec of an id.
    pub(super) fn find(&self, id: &ExecId) -> Result<Known, ExecError> {
        self.sweep();
        self.entries().get(id).map(Entry::known).ok_or_else(|| ExecError::Gone(id.clone()))
    }

    /// It runs.
    pub(super) fn running(&self, exec: &Arc<Exec>) {
        if let Some(entry) = self.entries().get_mut(&exec.id) {
            entry.stage = Stage::Running(Arc::clone(exec));
        }
    }

    /// It has ended; it may be asked for a while longer.
    pub(super) fn ended(&self, exec: &Arc<Exec>) {
        if let Some(entry) = self.entries().get_mut(&exec.id)
            && entry.exec().is_some_and(|found| Arc::ptr_eq(found, exec))
        {
            entry.stage = Stage::Ended(Arc::clone(exec), Instant::now());
        }
        self.sweep();
    }

    /// It has ended, and nobody will ask for it: it is forgotten once nothing of it runs.
    pub(super) fn over(&self, exec: &Arc<Exec>) {
        if exec.left_running().is_none() {
            return self.forget(exec);
        }
        exec.forget_output();
        if let Some(entry) = self.entries().get_mut(&exec.id)
            && entry.exec().is_some_and(|found| Arc::ptr_eq(found, exec))
        {
            entry.stage = Stage::Left(Arc::clone(exec), Instant::now());
        }
        self.sweep();
    }

    /// It never was.
    pub(super) fn forget_start(&self, id: &ExecId) {
        self.entries().remove(id);
    }

    /// Nobody shall find it again. Its id may be another one's by now, which stays.
    pub(super) fn forget(&self, exec: &Arc<Exec>) {
        let mut entries = self.entries();
        let found = entries.get(&exec.id).and_then(Entry::exec);
        if found.is_some_and(|found| Arc::ptr_eq(found, exec)) {
            entries.remove(&exec.id);
        }
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Exec>> {
        self.sweep();
        let entries = self.entries();
        let mut execs: Vec<_> = entries.values().filter_map(Entry::exec).cloned().collect();
        drop(entries);
        execs.sort_by_key(|exec| exec.started);
        execs
    }

    /// Drops ended ones, the oldest first, until what is left is within bounds. One that something runs
    /// on of loses its output only.
    fn sweep(&self) {
        let mut entries = self.entries();
        let mut ended: Vec<_> = entries
            .values()
            .filter_map(|entry| match &entry.stage {
                Stage::Ended(exec, since) => Some((*since, Arc::clone(exec), false)),
                Stage::Left(exec, since) => Some((*since, Arc::clone(exec), true)),
                Stage::Starting(_) | Stage::Running(_) => None,
            })
            .collect();
        // The newest first: they stay.
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

impl Entry {
    fn known(&self) -> Known {
        match &self.stage {
            Stage::Starting(begun) => Known::Starting(begun.clone()),
            Stage::Running(exec) | Stage::Ended(exec, _) | Stage::Left(exec, _) => {
                Known::Ready(Arc::clone(exec))
            }
        }
    }

    fn exec(&self) -> Option<&Arc<Exec>> {
        match &self.stage {
            Stage::Starting(_) => None,
            Stage::Running(exec) | Stage::Ended(exec, _) | Stage::Left(exec, _) => Some(exec),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::ExecStart;

    #[test]
    fn an_exec_that_is_forgotten_late_takes_no_other_one_along() {
        let registry = Registry::default();
        let id: ExecId = "same".parse().unwrap();
        let begin = || {
            assert!(matches!(registry.find_or_begin(&id, 0), Ok(Found::New(_))));
            let exec = Arc::new(Exec::new(id.clone(), 1, &ExecStart::default()));
            registry.running(&exec);
            exec
        };
        let old = begin();
        registry.forget(&old);
        let new = begin();
        // Two who removed the old one, and its own end.
        registry.forget(&old);
        registry.ended(&old);
        assert!(matches!(registry.find(&id), Ok(Known::Ready(found)) if Arc::ptr_eq(&found, &new)));
    }
}
