//! Pool of empty control groups for reuse.
//!
//! The kernel's memory controller keeps the data of a removed group until no page is charged to it. Pages of files stay
//! charged while they are in the page cache, and in a guest without a disk as long as the file exists. A new group for
//! each program would therefore cost 20 KiB for each program that ever wrote a file. Instead, an empty group is reused
//! by the next program without limits; without a limit, the pages that are already charged to it have no effect.

use crate::lock::lock;
use std::fs;
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

/// Groups in which no process runs.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<PathBuf>>);

impl Pool {
    fn groups(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        lock(&self.0)
    }

    /// Removes a group from the pool and returns it; `None` if the pool is empty.
    pub(super) fn take(&self) -> Option<PathBuf> {
        self.groups().pop()
    }

    /// Adds an empty group. Returns false, and adds nothing, if the group was changed or the pool is full.
    pub(super) fn keep(&self, dir: &Path) -> bool {
        if !is_as_new(dir) {
            return false;
        }
        let mut groups = self.groups();
        let has_room = groups.len() < MAX;
        if has_room {
            groups.push(dir.to_owned());
        }
        has_room
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for dir in self.groups().drain(..) {
            // After a failure, the next agent removes the group.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Reports whether a group has no subgroups and all of its settings have their defaults.
fn is_as_new(dir: &Path) -> bool {
    let unchanged = |(file, default): (&str, &str)| {
        fs::read_to_string(dir.join(file)).map_or(true, |now| now.trim_end() == default)
    };
    let has_groups = fs::metadata(dir).map_or(true, |metadata| metadata.nlink() != EMPTY);
    !has_groups && DEFAULTS.into_iter().all(unchanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a directory with the files of an unchanged group.
    fn group() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, default) in DEFAULTS {
            fs::write(dir.path().join(file), format!("{default}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn a_group_that_a_program_has_changed_is_not_reused() {
        let pool = Pool::default();
        for (file, _) in DEFAULTS {
            let dir = group();
            fs::write(dir.path().join(file), "1\n").unwrap();
            assert!(!pool.keep(dir.path()), "{file}");
        }
        let dir = group();
        fs::create_dir(dir.path().join("inner")).unwrap();
        assert!(!pool.keep(dir.path()));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn a_group_that_lacks_a_controllers_file_is_reused_and_the_pool_is_bounded() {
        let (pool, dir) = (Pool::default(), group());
        fs::remove_file(dir.path().join("memory.max")).unwrap();
        assert_eq!((0..2 * MAX).filter(|_| pool.keep(dir.path())).count(), MAX);
        assert_eq!(pool.take().as_deref(), Some(dir.path()));
    }
}
