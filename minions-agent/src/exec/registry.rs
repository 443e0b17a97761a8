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
    /// Of the request: the same id with another one is a mistake.
    fingerprint: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Starting(watch::Receiver<Option<Begun>>),
    Running(Arc<Exec>),
    Ended(Arc<Exec>, Instant),
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
            if entry.fingerprint != fingerprint {
                return Err(ExecError::Conflict);
            }
            return Ok(Found::Known(entry.known()));
        }
        let (tell, told) = watch::channel(None);
        entries.insert(id.clone(), Entry { fingerprint, stage: Stage::Starting(told) });
        Ok(Found::New(tell))
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

    /// Drops ended ones, the oldest first, until what is left is within bounds.
    fn sweep(&self) {
        let mut entries = self.entries();
        let mut ended: Vec<_> = entries
            .iter()
            .filter_map(|(id, entry)| match &entry.stage {
                Stage::Ended(exec, since) => Some((*since, id.clone(), exec.memory())),
                Stage::Starting(_) | Stage::Running(_) => None,
            })
            .collect();
        // The newest first: they stay.
        ended.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
        let mut memory = 0;
        for (at, (since, id, bytes)) in ended.into_iter().enumerate() {
            memory += bytes;
            if at >= MAX_ENDED || memory > MAX_ENDED_MEMORY || since.elapsed() > KEEP {
                entries.remove(&id);
            }
        }
    }
}

impl Entry {
    fn known(&self) -> Known {
        match &self.stage {
            Stage::Starting(begun) => Known::Starting(begun.clone()),
            Stage::Running(exec) | Stage::Ended(exec, _) => Known::Ready(Arc::clone(exec)),
        }
    }

    fn exec(&self) -> Option<&Arc<Exec>> {
        match &self.stage {
            Stage::Starting(_) => None,
            Stage::Running(exec) | Stage::Ended(exec, _) => Some(exec),
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
