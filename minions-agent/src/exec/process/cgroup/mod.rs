//! Control groups of programs, if the guest has cgroup v2 and lets the agent use it.
//!
//! A program can leave its session and its process group, but only a program of root's can leave its control
//! group. So killing the group kills all of the program's processes.

mod files;
mod limits;
mod pool;
mod record;

pub(in crate::exec) use limits::Limits;
pub(in crate::exec) use record::{AgentProcess, ProgramRecord};

use crate::cgroup::{self, CgroupHierarchy};
use crate::lock::lock;
use files::{GroupFiles, is_busy, is_in_tree};
use minions_proto::Invalid;
use pool::{EmptyGroup, Pool};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Number of the next group, shared by all agents in this process; part of the group's name.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Prefix of the names of programs' groups.
const PREFIX: &str = "exec-";

/// Number of rounds in which the processes of a group are killed one by one: each can fork before it is killed.
const KILL_ROUNDS: u32 = 64;

/// Name of the group of all programs of a guest, directly below the root of the tree.
const GUEST_GROUP: &str = "minions";

/// Location of the control groups of an agent's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramGroups {
    /// The group `/minions`, with all controllers: the machine is a guest, whose tree the agent may configure. Not
    /// below the agent's own group: programs outlive a restart of the agent, but its unit's group does not,
    /// and systemd starts nothing in a group whose subgroups have controllers.
    OfGuest,
    /// A group of this name, below the group that the agent was started in.
    Below(String),
}

/// Makes control groups for programs.
#[derive(Debug, Clone)]
pub(in crate::exec) struct CgroupFactory(Option<Arc<CgroupTree>>);

#[derive(Debug)]
struct CgroupTree {
    hierarchy: CgroupHierarchy,
    groups: ProgramGroups,
    parent: PathBuf,
    /// Empty groups for reuse; used only with [`ProgramGroups::OfGuest`]: on another machine, an agent that is killed would
    /// leave them for good.
    pool: Pool,
    /// Groups that could not be removed yet, because processes still ran in them.
    leftover: Mutex<Vec<PathBuf>>,
}

impl CgroupFactory {
    /// Finds the tree, and tries whether groups can be made in it.
    pub(in crate::exec) fn find(groups: ProgramGroups) -> Self {
        let Some(hierarchy) = CgroupHierarchy::find() else { return Self(None) };
        let parent = parent(&hierarchy, &groups);
        let (pool, leftover) = (Pool::default(), Mutex::default());
        let shared = CgroupTree { hierarchy, groups, parent, pool, leftover };
        let cgroups = Self(Some(Arc::new(shared)));
        // The attempt is necessary: a read-only mount looks the same as a writable one.
        match cgroups.make() {
            Some(cgroup) if cgroup.files.dir().join("cgroup.kill").exists() => {
                drop(cgroup);
                cgroups
            }
            _ => Self(None),
        }
    }

    /// Returns a control group with these limits for the program of `record`; `None` if the guest has no control
    /// groups and no limit is requested.
    ///
    /// # Errors
    ///
    /// Names the limit that this guest cannot enforce.
    pub(in crate::exec) fn begin(
        &self,
        record: &ProgramRecord,
        limits: Limits,
    ) -> Result<Option<Cgroup>, Invalid> {
        if limits.first().is_none()
            && let Some(cgroup) = self.used_before(record)
        {
            limits.apply(&cgroup.files)?;
            return Ok(Some(cgroup));
        }
        let Some(cgroup) = self.make() else { return limits.unless_any() };
        if let Err(error) = record.write(cgroup.files.dir()) {
            tracing::warn!(%error, "cannot label a control group; the next agent will not know the exec's id");
        }
        limits.apply(&cgroup.files)?;
        Ok(Some(cgroup))
    }

    /// Stores the generation of the guest for the next agent.
    pub(in crate::exec) fn store_generation(&self, generation: u64) {
        let Some(shared) = &self.0 else { return };
        match record::write_generation(&shared.parent, generation) {
            Ok(()) => {}
            // Without programs, there is no parent group, and nothing that a later generation can inherit.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(
                %error, "cannot store the generation; the next agent will not list inherited programs as such"
            ),
        }
    }

    /// Returns the generation that an earlier agent has stored; 0 without one.
    pub(in crate::exec) fn stored_generation(&self) -> u64 {
        let stored = self.0.as_ref().and_then(|shared| record::read_generation(&shared.parent));
        stored.unwrap_or_default()
    }

    fn used_before(&self, record: &ProgramRecord) -> Option<Cgroup> {
        let shared = self.0.as_ref()?;
        let EmptyGroup { dir, oom_kills } = shared.pool.take()?;
        // A program of root's may have removed the group.
        let files = record.write(&dir).and_then(|()| GroupFiles::open(dir.clone()));
        let Ok(files) = files else {
            lock(&shared.leftover).push(dir);
            return None;
        };
        Some(Cgroup::counting_from(oom_kills, files, shared))
    }

    fn make(&self) -> Option<Cgroup> {
        let shared = self.0.as_ref()?;
        // The tree may have been hidden or unmounted since; its mount point is then an ordinary directory.
        if !is_in_tree(shared.hierarchy.root()) {
            return None;
        }
        shared.sweep();
        // Another agent, or an earlier one, may have left a group with this name.
        for _ in 0..16 {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let dir = shared.parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            let made = fs::create_dir(&dir).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => shared.make_parent().and_then(|()| fs::create_dir(&dir)),
                _ => Err(error),
            });
            match made {
                Ok(()) => return Some(Cgroup::of(GroupFiles::open(dir).ok()?, shared)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Returns the groups of earlier agents in which processes still run, each with its name and its record, the
    /// oldest first. Empty groups are removed.
    pub(in crate::exec) fn left_by_others(&self) -> Vec<(String, Option<ProgramRecord>, Cgroup)> {
        let Some(shared) = &self.0 else { return Vec::new() };
        let Ok(entries) = fs::read_dir(&shared.parent) else { return Vec::new() };
        let mut left = Vec::new();
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(process) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next())
            else {
                continue;
            };
            let record = ProgramRecord::read(&entry.path());
            // A group that another agent is just making has no record yet.
            let is_used = record.as_ref().map_or_else(
                || process.parse().is_ok_and(|pid| record::started(pid).is_some()),
                |record| record.agent.is_alive(),
            );
            if is_used {
                continue;
            }
            let mut cgroup = Cgroup::of(GroupFiles::at(entry.path()), shared);
            // Not known.
            *cgroup.was_killed.get_mut() = true;
            if cgroup.is_alive() {
                left.push((name, record, cgroup));
            }
        }
        left.sort_by_key(|(_, record, _)| record.as_ref().map_or(0, |record| record.started_ms));
        left
    }
}

fn parent(hierarchy: &CgroupHierarchy, groups: &ProgramGroups) -> PathBuf {
    let of_guest = hierarchy.root().join(GUEST_GROUP);
    match groups {
        ProgramGroups::OfGuest => of_guest,
        ProgramGroups::Below(name) => hierarchy.own().unwrap_or(of_guest).join(name),
    }
}

impl CgroupTree {
    /// Makes the parent group, with the available controllers. On a machine that is not a guest, no other group is
    /// changed.
    fn make_parent(&self) -> io::Result<()> {
        match &self.groups {
            ProgramGroups::OfGuest => cgroup::enable_controllers(self.hierarchy.root()),
            ProgramGroups::Below(_) => self.parent.parent().map_or(Ok(()), cgroup::make)?,
        }
        cgroup::make(&self.parent)?;
        cgroup::enable_controllers(&self.parent);
        Ok(())
    }

    /// Removes the parent group, unless it is the guest's, once its last program has ended.
    fn remove_parent(&self) {
        if let ProgramGroups::Below(_) = self.groups {
            // Fails while other programs' groups are in it.
            let _ = fs::remove_dir(&self.parent);
        }
    }

    fn sweep(&self) {
        let mut leftover = lock(&self.leftover);
        leftover.retain(|dir| is_busy(dir));
    }
}

impl Drop for CgroupTree {
    /// Removes the groups of this agent. The guest's parent group stays: it stores the generation.
    fn drop(&mut self) {
        self.pool.clear();
        self.sweep();
        self.remove_parent();
    }
}

/// Control group of a program. Reused or removed when dropped; if processes still run in it, removed later.
#[derive(Debug)]
pub(in crate::exec) struct Cgroup {
    files: GroupFiles,
    /// Count of OOM kills in this group before this program.
    oom_kills_before: u64,
    /// True if the group was seen empty after the program's end.
    is_empty: bool,
    /// True once the group was killed as a whole, or if that is not known. Such a group is not reused: some kernels (Linux
    /// 6.18, for example) kill each process that clone3(2) starts in it.
    was_killed: AtomicBool,
    shared: Arc<CgroupTree>,
}

impl Cgroup {
    fn of(files: GroupFiles, shared: &Arc<CgroupTree>) -> Self {
        Self::counting_from(oom_kills(&files), files, shared)
    }

    fn counting_from(oom_kills_before: u64, files: GroupFiles, shared: &Arc<CgroupTree>) -> Self {
        let (was_killed, shared) = (AtomicBool::new(false), Arc::clone(shared));
        Self { files, oom_kills_before, is_empty: false, was_killed, shared }
    }

    /// Checks, after the program's end, whether no process runs any more, and keeps the result for the drop. If the
    /// `program_was_killed`, the whole group may have been: a program of root's can do that.
    pub(super) fn ends_empty(&mut self, program_was_killed: bool) -> bool {
        let was_killed = self.was_killed.get_mut();
        if program_was_killed && !*was_killed {
            // The parent group may have been killed, and with it the empty groups.
            self.shared.pool.clear();
        }
        *was_killed |= program_was_killed;
        self.is_empty = !self.is_alive();
        self.is_empty
    }

    /// Closes the group's descriptor. Used after the program has ended, because leftover processes may run for long.
    pub(super) fn without_descriptor(mut self) -> Self {
        self.files.close();
        self
    }

    /// Returns the descriptor of the group's directory, for starting a process in it. `None` for the group of an
    /// earlier agent.
    pub(super) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.files.fd()
    }

    /// Sends a signal to each process that is in the group at this moment, and returns them.
    pub(in crate::exec) fn signal(&self, signal: Signal) -> Vec<Pid> {
        let processes = self.files.read("cgroup.procs").unwrap_or_default();
        let processes = processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
        let processes: Vec<Pid> = processes.collect();
        for pid in &processes {
            // Fails if the process has ended.
            let _ = kill_process(*pid, signal);
        }
        processes
    }

    /// Updates the group's record, once the program's pid is known.
    pub(super) fn label(&self, record: &ProgramRecord) {
        // A failure was already logged when the group was made.
        let _ = record.write(self.files.dir());
    }

    /// Returns the number of this program's processes that the OOM killer has ended; 0 if the kernel does not
    /// count them.
    pub(super) fn oom_kills(&self) -> u64 {
        oom_kills(&self.files).saturating_sub(self.oom_kills_before)
    }

    /// Returns the number of processes in the group, without those in subgroups.
    pub(in crate::exec) fn processes(&self) -> u64 {
        let processes = self.files.read("cgroup.procs").unwrap_or_default();
        processes.lines().count() as u64
    }

    /// Kills all processes in the group atomically, including new forks (kernel 5.14). Kills them one by one if
    /// `cgroup.kill` cannot be written, for example in a read-only tree.
    pub(in crate::exec) fn kill(&self) {
        self.was_killed.store(true, Ordering::Relaxed);
        let Err(error) = self.files.write("cgroup.kill", "1") else { return };
        tracing::warn!(%error, "cannot kill a control group as a whole; its processes are killed one by one");
        for _ in 0..KILL_ROUNDS {
            if !self.is_alive() || self.signal(Signal::KILL).is_empty() {
                return;
            }
        }
    }

    /// Reports whether processes run in the group or in subgroups; zombies do not count. Without a descriptor to find out,
    /// they may run.
    pub(in crate::exec) fn is_alive(&self) -> bool {
        match self.files.read_short("cgroup.events") {
            Ok(events) => !events.lines().any(|line| line == "populated 0"),
            Err(error) => !is_gone(&error),
        }
    }
}

/// Reports whether a file could not be read because its group was removed, or its tree unmounted.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::NODEV)
}

fn oom_kills(files: &GroupFiles) -> u64 {
    let events = files.read_short("memory.events").unwrap_or_default();
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let is_as_new = self.shared.groups == ProgramGroups::OfGuest
            && !*self.was_killed.get_mut()
            && (self.is_empty || !self.is_alive());
        if is_as_new && self.shared.pool.keep(&self.files, oom_kills(&self.files)) {
            return;
        }
        if is_busy(self.files.dir()) {
            let mut leftover = lock(&self.shared.leftover);
            leftover.push(self.files.dir().to_owned());
        } else {
            self.shared.remove_parent();
        }
    }
}
