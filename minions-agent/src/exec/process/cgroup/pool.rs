//! Pool of empty control groups for reuse.
//!
//! The kernel's memory controller keeps the data of a removed group until no page is charged to it. Pages of files stay
//! charged while they are in the page cache, and in a guest without a disk as long as the file exists. A new group for
//! each program would therefore cost 20 KiB for each program that ever wrote a file. Instead, an empty group is reused
//! by the next program without limits; without a limit, the pages that are already charged to it have no effect.
//!
//! A group that was killed is not reused: some kernels (Linux 6.18, for example) kill each process that clone3(2) starts
//! in it.

use super::files::GroupFiles;
use crate::lock::lock;
use rustix::process::geteuid;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Maximum number of groups that are kept: the number of programs that can run at the same time.
const MAX: usize = 64;

/// Link count of a directory without subdirectories.
const EMPTY: u64 = 2;

/// Files that a program running as root may have changed in its own group, and their defaults. A file that this kernel
/// does not have counts as unchanged.
const DEFAULTS: [(&str, &str); 12] = [
    ("cgroup.freeze", "0"),
    ("cgroup.max.depth", "max"),
    ("cgroup.max.descendants", "max"),
    ("cgroup.subtree_control", ""),
    ("cpu.max", "max 100000"),
    ("cpu.weight", "100"),
    ("memory.high", "max"),
    ("memory.low", "0"),
    ("memory.max", "max"),
    ("memory.min", "0"),
    ("memory.swap.max", "max"),
    ("pids.max", "max"),
];

/// Files whose owner has power over the programs of a group. A program of root's may have given them to another user, usually
/// together with the group's directory (the first entry).
const DELEGATED: [&str; 3] = ["", "cgroup.procs", "cgroup.kill"];

/// Groups in which no process runs.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<EmptyGroup>>);

/// Group in which no process runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EmptyGroup {
    pub(super) dir: PathBuf,
    /// Count of OOM kills in the group. It does not change as long as no process runs.
    pub(super) oom_kills: u64,
}

impl Pool {
    fn groups(&self) -> MutexGuard<'_, Vec<EmptyGroup>> {
        lock(&self.0)
    }

    /// Removes a group from the pool and returns it; `None` if the pool is empty.
    pub(super) fn take(&self) -> Option<EmptyGroup> {
        self.groups().pop()
    }

    /// Adds an empty group with its count of OOM kills. Returns false, and adds nothing, if the group was changed or the
    /// pool is full.
    pub(super) fn keep(&self, group: &GroupFiles, oom_kills: u64) -> bool {
        if !is_as_new(group) {
            return false;
        }
        let mut groups = self.groups();
        let has_room = groups.len() < MAX;
        if has_room {
            groups.push(EmptyGroup { dir: group.dir().to_owned(), oom_kills });
        }
        has_room
    }

    /// Removes all groups of the pool.
    pub(super) fn clear(&self) {
        for group in self.groups().drain(..) {
            // After a failure, the next agent removes the group.
            let _ = fs::remove_dir(group.dir);
        }
    }
}

/// Reports whether a group has no subgroups and all of its settings have their defaults.
fn is_as_new(group: &GroupFiles) -> bool {
    let unchanged = |(file, default): (&str, &str)| match group.read_short(file) {
        Ok(now) => now.trim_end() == default,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let has_groups = fs::metadata(group.dir()).map_or(true, |metadata| metadata.nlink() != EMPTY);
    let is_delegated = DELEGATED.into_iter().any(|file| !is_own(&group.dir().join(file)));
    !has_groups && !is_delegated && DEFAULTS.into_iter().all(unchanged)
}

/// Reports whether a file belongs to the agent's user.
fn is_own(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.uid() == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::chown;

    /// Creates a directory with the files of an unchanged group.
    fn group() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, default) in DEFAULTS {
            fs::write(dir.path().join(file), format!("{default}\n")).unwrap();
        }
        for file in &DELEGATED[1..] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        dir
    }

    fn keep(pool: &Pool, dir: &tempfile::TempDir) -> bool {
        pool.keep(&GroupFiles::at(dir.path().to_owned()), 3)
    }

    #[test]
    fn a_group_that_a_program_has_changed_is_not_reused() {
        let pool = Pool::default();
        for (file, _) in DEFAULTS {
            let dir = group();
            fs::write(dir.path().join(file), "1\n").unwrap();
            assert!(!keep(&pool, &dir), "{file}");
        }
        let dir = group();
        fs::create_dir(dir.path().join("inner")).unwrap();
        assert!(!keep(&pool, &dir));
        if geteuid().is_root() {
            for file in DELEGATED {
                let dir = group();
                chown(dir.path().join(file), Some(1000), None).unwrap();
                assert!(!keep(&pool, &dir), "{file:?} belongs to another user");
            }
        }
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn a_group_that_lacks_a_controllers_file_is_reused_and_the_pool_is_bounded() {
        let (pool, dir) = (Pool::default(), group());
        fs::remove_file(dir.path().join("memory.max")).unwrap();
        assert_eq!((0..2 * MAX).filter(|_| keep(&pool, &dir)).count(), MAX);
        let expected = EmptyGroup { dir: dir.path().to_owned(), oom_kills: 3 };
        assert_eq!(pool.take(), Some(expected));
    }
}
