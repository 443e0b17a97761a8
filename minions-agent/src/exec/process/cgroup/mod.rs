//! A control group for each program, where the guest has cgroup v2 and lets us: a program can leave
//! its session and its process group, but only root's can leave its cgroup, so that a kill leaves
//! nothing.

mod limits;
mod pool;
mod record;

pub(in crate::exec) use limits::Limits;
pub(in crate::exec) use record::{Owner, Record};

use crate::cgroup::{self, Hierarchy};
use minions_proto::Invalid;
use pool::Pool;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// By all agents of this process.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Of a program's group's name.
const PREFIX: &str = "exec-";

/// Directly below the tree's root.
const OURS: &str = "minions";

/// Where an agent makes the control groups of its programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramGroups {
    /// In `/minions`, with all controllers: the machine is a guest, and its tree the agent's to arrange.
    /// Not below the agent's own group: programs outlive a restart of the agent, its unit's group
    /// doesn't, and systemd starts nothing in a group whose subgroups have controllers.
    OfGuest,
    /// Below the group that the agent was started in, by this name.
    Below(String),
}

/// Makes control groups for programs.
#[derive(Debug, Clone)]
pub(in crate::exec) struct Cgroups(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    hierarchy: Hierarchy,
    groups: ProgramGroups,
    parent: PathBuf,
    /// Of a guest's agent.
    pool: Pool,
    /// Those that something still ran in when we were done with them.
    leftover: Mutex<Vec<PathBuf>>,
}

impl Cgroups {
    /// Finds out whether control groups can be made.
    pub(in crate::exec) fn find(groups: ProgramGroups) -> Self {
        let Some(hierarchy) = Hierarchy::find() else { return Self(None) };
        let parent = parent(&hierarchy, &groups);
        let (pool, leftover) = (Pool::default(), Mutex::default());
        let shared = Shared { hierarchy, groups, parent, pool, leftover };
        let cgroups = Self(Some(Arc::new(shared)));
        // Only trying tells: a read-only mount looks the same.
        match cgroups.make() {
            Some(cgroup) if cgroup.dir.join("cgroup.kill").exists() => {
                drop(cgroup);
                cgroups
            }
            _ => Self(None),
        }
    }

    /// One for the program of `record`, if that works.
    ///
    /// # Errors
    ///
    /// The limit that the guest can't enforce.
    pub(in crate::exec) fn begin(
        &self,
        record: &Record,
        limits: Limits,
    ) -> Result<Option<Cgroup>, Invalid> {
        if limits.first().is_none()
            && let Some(cgroup) = self.used_before(record)
        {
            limits.apply(&cgroup.dir)?;
            return Ok(Some(cgroup));
        }
        let Some(cgroup) = self.make() else { return limits.unless_any() };
        if let Err(error) = record.write(&cgroup.dir) {
            tracing::warn!(%error, "a control group can't be labelled: the next agent won't know its id");
        }
        limits.apply(&cgroup.dir)?;
        Ok(Some(cgroup))
    }

    fn used_before(&self, record: &Record) -> Option<Cgroup> {
        let shared = self.0.as_ref()?;
        let dir = shared.pool.take()?;
        // A program of root's may have removed it.
        record.write(&dir).ok()?;
        Some(Cgroup::of(dir, shared))
    }

    fn make(&self) -> Option<Cgroup> {
        let shared = self.0.as_ref()?;
        shared.sweep();
        // Another agent, or one before us, may have left some behind.
        for _ in 0..16 {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let dir = shared.parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            let made = fs::create_dir(&dir).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => shared.make_parent().and_then(|()| fs::create_dir(&dir)),
                _ => Err(error),
            });
            match made {
                Ok(()) => return Some(Cgroup::of(dir, shared)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// What earlier agents at this place have left running, the oldest group first, and who each was.
    /// Groups in which nothing runs are removed.
    pub(in crate::exec) fn left_by_others(&self) -> Vec<(String, Option<Record>, Cgroup)> {
        let Some(shared) = &self.0 else { return Vec::new() };
        let Ok(entries) = fs::read_dir(&shared.parent) else { return Vec::new() };
        let mut left = Vec::new();
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(process) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next())
            else {
                continue;
            };
            let record = Record::read(&entry.path());
            // One that is being made has none yet.
            let is_used = record.as_ref().map_or_else(
                || process.parse().is_ok_and(|pid| record::started(pid).is_some()),
                |record| record.agent.is_alive(),
            );
            if is_used {
                continue;
            }
            let cgroup = Cgroup::of(entry.path(), shared);
            if cgroup.is_alive() {
                left.push((name, record, cgroup));
            }
        }
        left.sort_by_key(|(_, record, _)| record.as_ref().map_or(0, |record| record.started_ms));
        left
    }
}

fn parent(hierarchy: &Hierarchy, groups: &ProgramGroups) -> PathBuf {
    let ours = hierarchy.root().join(OURS);
    match groups {
        ProgramGroups::OfGuest => ours,
        ProgramGroups::Below(name) => hierarchy.own().unwrap_or(ours).join(name),
    }
}

impl Shared {
    /// With what controllers there are; the rest of a machine that is no guest stays as it is.
    fn make_parent(&self) -> io::Result<()> {
        match &self.groups {
            ProgramGroups::OfGuest => cgroup::enable_controllers(self.hierarchy.root()),
            ProgramGroups::Below(_) => self.parent.parent().map_or(Ok(()), cgroup::make)?,
        }
        cgroup::make(&self.parent)?;
        cgroup::enable_controllers(&self.parent);
        Ok(())
    }

    /// Leaves nothing of an agent that is no guest's own, once its last program is gone.
    fn remove_parent(&self) {
        if let ProgramGroups::Below(_) = self.groups {
            // Others may be in it.
            let _ = fs::remove_dir(&self.parent);
        }
    }

    fn sweep(&self) {
        let mut leftover = self.leftover.lock().unwrap_or_else(PoisonError::into_inner);
        leftover.retain(|dir| is_busy(dir));
    }
}

/// Removes it, unless something runs in it.
fn is_busy(dir: &Path) -> bool {
    fs::remove_dir(dir).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

/// One program's. Removed when dropped, or once what is left in it has ended.
#[derive(Debug)]
pub(in crate::exec) struct Cgroup {
    dir: PathBuf,
    /// How many processes were killed in it for want of memory, before this program.
    oom_kills_before: u64,
    shared: Arc<Shared>,
}

impl Cgroup {
    fn of(dir: PathBuf, shared: &Arc<Shared>) -> Self {
        Self { oom_kills_before: oom_kills(&dir), dir, shared: Arc::clone(shared) }
    }

    /// What a process can be started in.
    pub(super) fn directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(open(&self.dir, flags, Mode::empty())?)
    }

    /// Sends a signal to each process in it, as they are at this moment, and says which those were.
    pub(in crate::exec) fn signal(&self, signal: Signal) -> Vec<Pid> {
        let processes = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        let processes = processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
        let processes: Vec<Pid> = processes.collect();
        for pid in &processes {
            // It may have ended.
            let _ = kill_process(*pid, signal);
        }
        processes
    }

    /// The program has this number, of which the next agent should know.
    pub(super) fn label(&self, record: &Record) {
        // Whoever could not be told at first has been complained about.
        let _ = record.write(&self.dir);
    }

    /// How many processes of its program the kernel has killed for want of memory; 0 where that isn't
    /// counted.
    pub(super) fn oom_kills(&self) -> u64 {
        oom_kills(&self.dir).saturating_sub(self.oom_kills_before)
    }

    /// How many processes run in it.
    pub(in crate::exec) fn processes(&self) -> u64 {
        let processes = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        processes.lines().count() as u64
    }

    /// Kills everything in it at once; nothing can fork its way out (kernel 5.14).
    pub(in crate::exec) fn kill(&self) {
        if let Err(error) = fs::write(self.dir.join("cgroup.kill"), "1") {
            tracing::warn!(%error, "a control group can't be killed");
        }
    }

    /// Whether anything runs in it, zombies not counted.
    pub(in crate::exec) fn is_alive(&self) -> bool {
        fs::read_to_string(self.dir.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }
}

fn oom_kills(dir: &Path) -> u64 {
    let events = fs::read_to_string(dir.join("memory.events")).unwrap_or_default();
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.shared.groups == ProgramGroups::OfGuest
            && !self.is_alive()
            && self.shared.pool.keep(&self.dir)
        {
            return;
        }
        if is_busy(&self.dir) {
            let mut leftover = self.shared.leftover.lock().unwrap_or_else(PoisonError::into_inner);
            leftover.push(std::mem::take(&mut self.dir));
        } else {
            self.shared.remove_parent();
        }
    }
}
