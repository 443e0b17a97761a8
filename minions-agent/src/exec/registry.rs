//! Registry of the agent's execs, by their ids.

use super::error::ExecError;
use super::object::Exec;
use crate::lock::lock;
use minions_proto::message::ExecId;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
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

/// Longest id of an exec, in bytes.
const MAX_ID_LEN: usize = 64;

/// Result of starting an exec, shared by all requests for the same id that arrived in the meantime.
pub(super) type StartResult = Result<Arc<Exec>, ExecError>;

/// All execs by id: starting, running, and ended ones that are kept.
#[derive(Debug, Default)]
pub(super) struct ExecRegistry {
    entries: Mutex<ExecEntries>,
}

/// The execs, and the ids of the generation before.
#[derive(Debug, Default)]
struct ExecEntries {
    by_id: HashMap<ExecId, RegistryEntry>,
    /// Generation of new execs.
    generation: u64,
    /// Ids that were in use when the generation began, with the ids under which their programs are listed now. Bounded
    /// by the limits of the registry, because each generation replaces it.
    earlier: HashMap<ExecId, Option<ExecId>>,
}

#[derive(Debug)]
struct RegistryEntry {
    request: KnownRequest,
    stage: ExecStage,
}

/// Request that started an exec, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownRequest {
    /// Hash of the request: an id with a different one is a conflict.
    Hash(u64),
    /// Request to an earlier agent: any request with the id attaches.
    Unknown,
    /// Request to an earlier generation: any request with the id is a conflict.
    Inherited,
    /// Event of which the program is a hook: any request with the id is a conflict. A hook belongs to
    /// no generation, because no client waits for its result: it runs to its end under the same id.
    Hook,
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
    New { sender: watch::Sender<Option<StartResult>>, generation: u64 },
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
    fn entries(&self) -> MutexGuard<'_, ExecEntries> {
        lock(&self.entries)
    }

    /// Finds `id`, or reserves it for the caller.
    pub(super) fn find_or_begin(
        &self,
        id: &ExecId,
        request: KnownRequest,
    ) -> Result<IdLookup, ExecError> {
        let mut entries = self.entries();
        if let Some(entry) = entries.by_id.get(id) {
            return match entry.request {
                KnownRequest::Hash(_) if entry.request == request => {
                    Ok(IdLookup::Known(entry.known()))
                }
                KnownRequest::Unknown => Ok(IdLookup::Known(entry.known())),
                KnownRequest::Hash(_) | KnownRequest::Inherited | KnownRequest::Hook => {
                    Err(ExecError::Conflict)
                }
            };
        }
        let (sender, receiver) = watch::channel(None);
        let stage = ExecStage::Starting(receiver);
        entries.by_id.insert(id.clone(), RegistryEntry { request, stage });
        Ok(IdLookup::New { sender, generation: entries.generation })
    }

    /// Reports whether an id is free.
    pub(super) fn is_free(&self, id: &ExecId) -> bool {
        !self.entries().by_id.contains_key(id)
    }

    /// Returns the generation of new execs.
    pub(super) fn generation(&self) -> u64 {
        self.entries().generation
    }

    /// Continues the generation that an earlier agent has begun.
    pub(super) fn continue_generation(&self, generation: u64) {
        self.entries().generation = generation;
    }

    /// Returns the id under which a program that was started with this id, in this generation, is listed now.
    pub(super) fn listed_id(&self, id: &ExecId, generation: u64) -> ExecId {
        if generation < self.generation() { qualified(id, generation) } else { id.clone() }
    }

    /// Adds the exec of an earlier agent's program. Returns false if there is no room for it.
    pub(super) fn adopt(&self, exec: Exec) -> bool {
        let mut entries = self.entries();
        if entries.by_id.len() >= MAX_LEFT {
            return false;
        }
        let (mut id, mut request) = (exec.id.clone(), KnownRequest::Unknown);
        if exec.generation < entries.generation {
            id = qualified(&exec.id, exec.generation);
            request = KnownRequest::Inherited;
            exec.inherit(id.clone());
            // The newest program comes first.
            entries.earlier.entry(exec.id.clone()).or_insert_with(|| Some(id.clone()));
        }
        let stage = ExecStage::Ended(Arc::new(exec), Instant::now());
        entries.by_id.insert(id, RegistryEntry { request, stage });
        true
    }

    /// Finds the exec with this id.
    pub(super) fn find(&self, id: &ExecId) -> Result<FoundExec, ExecError> {
        self.sweep();
        let entries = self.entries();
        if let Some(entry) = entries.by_id.get(id) {
            return Ok(entry.known());
        }
        Err(match entries.earlier.get(id) {
            Some(listed) => ExecError::Earlier { id: id.clone(), listed: listed.clone() },
            None => ExecError::Gone(id.clone()),
        })
    }

    /// Records that the exec has been started. It is inherited if another generation has begun since the request, unless
    /// it is a hook.
    pub(super) fn running(&self, exec: &Arc<Exec>) {
        let mut entries = self.entries();
        if exec.generation != entries.generation && !entries.is_hook(&exec.id) {
            exec.inherit(qualified(&exec.id, exec.generation));
        }
        if let Some(entry) = entries.by_id.get_mut(&exec.listed_id()) {
            entry.stage = ExecStage::Running(Arc::clone(exec));
        }
    }

    /// Begins the generation after `ended`. Programs that run are inherited: they get an id that names their
    /// generation, and their streams end. What has ended is forgotten: it is a result of the guest that was saved. Hooks
    /// remain as they are.
    pub(super) fn begin_generation(&self, ended: u64) {
        let mut entries = self.entries();
        entries.generation = ended + 1;
        entries.earlier.clear();
        for (id, mut entry) in std::mem::take(&mut entries.by_id) {
            let is_over = match &entry.stage {
                ExecStage::Starting(_) | ExecStage::Running(_) => false,
                ExecStage::Ended(exec, _) | ExecStage::Left(exec, _) => {
                    exec.left_running().is_none()
                }
            };
            if entry.request == KnownRequest::Hook {
                entries.by_id.insert(id, entry);
                continue;
            }
            if entry.request == KnownRequest::Inherited {
                if !is_over {
                    entries.by_id.insert(id, entry);
                }
                continue;
            }
            let listed = qualified(&id, ended);
            if let Some(exec) = entry.exec() {
                exec.inherit(listed.clone());
            }
            entries.earlier.insert(id, (!is_over).then(|| listed.clone()));
            if !is_over {
                entry.request = KnownRequest::Inherited;
                entries.by_id.insert(listed, entry);
            }
        }
    }

    /// Records that the exec has ended, and keeps it for a while.
    pub(super) fn ended(&self, exec: &Arc<Exec>) {
        if let Some(entry) = self.entries().by_id.get_mut(&exec.listed_id())
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
        if let Some(entry) = self.entries().by_id.get_mut(&exec.listed_id())
            && entry.exec().is_some_and(|found| Arc::ptr_eq(found, exec))
        {
            entry.stage = ExecStage::Left(Arc::clone(exec), Instant::now());
        }
        self.sweep();
    }

    /// Releases an id whose program did not start.
    pub(super) fn forget_start(&self, id: &ExecId, generation: u64) {
        let mut entries = self.entries();
        if generation == entries.generation || entries.is_hook(id) {
            entries.by_id.remove(id);
        } else {
            entries.by_id.remove(&qualified(id, generation));
        }
    }

    /// Removes this exec. Another exec that has the same id by now stays.
    pub(super) fn forget(&self, exec: &Arc<Exec>) {
        let mut entries = self.entries();
        let id = exec.listed_id();
        let found = entries.by_id.get(&id).and_then(RegistryEntry::exec);
        if found.is_some_and(|found| Arc::ptr_eq(found, exec)) {
            entries.by_id.remove(&id);
        }
    }

    /// Returns all execs that were started, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Exec>> {
        self.sweep();
        let entries = self.entries();
        let mut execs: Vec<_> =
            entries.by_id.values().filter_map(RegistryEntry::exec).cloned().collect();
        drop(entries);
        execs.sort_by_key(|exec| exec.started);
        execs
    }

    /// Drops ended execs, the oldest first, until the rest is within the limits. An exec with leftover processes
    /// loses only its output.
    fn sweep(&self) {
        let mut entries = self.entries();
        let mut ended: Vec<_> = entries
            .by_id
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
                entries.by_id.remove(&exec.listed_id());
            }
        }
    }
}

impl ExecEntries {
    fn is_hook(&self, id: &ExecId) -> bool {
        self.by_id.get(id).is_some_and(|entry| entry.request == KnownRequest::Hook)
    }
}

/// Returns the id of a program that a later generation inherits: `g0.build` for `build` of generation 0. The end of an
/// id that is too long is replaced by a hash.
fn qualified(id: &ExecId, generation: u64) -> ExecId {
    let text = format!("g{generation}.{id}");
    text.parse().unwrap_or_else(|_| {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let kept: String = text.chars().take(MAX_ID_LEN - 17).collect();
        format!("{kept}-{hash:016x}").parse().expect("64 characters of an id")
    })
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
            assert!(matches!(
                registry.find_or_begin(&id, KnownRequest::Hash(0)),
                Ok(IdLookup::New { .. })
            ));
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

    #[test]
    fn the_result_of_an_inherited_program_is_not_passed_on_to_the_next_generation() {
        let registry = ExecRegistry::default();
        let [id, listed]: [ExecId; 2] = ["job", "g0.job"].map(|id| id.parse().unwrap());
        assert!(matches!(
            registry.find_or_begin(&id, KnownRequest::Hash(0)),
            Ok(IdLookup::New { .. })
        ));
        let exec = Arc::new(Exec::new(id, 0, &ExecStart::default()));
        registry.running(&exec);
        registry.begin_generation(0);
        assert!(registry.find(&listed).is_ok(), "it runs");
        registry.begin_generation(1);
        assert!(registry.find(&listed).is_ok(), "it still runs");
        registry.ended(&exec);
        assert!(registry.find(&listed).is_ok(), "it has ended in this generation");
        registry.begin_generation(2);
        assert!(registry.find(&listed).is_err());
    }
}
