//! Pool of empty control groups for reuse.
//!
//! The kernel keeps a removed group with the memory controller as long as a page is charged to it: a page of a file
//! in the page cache, or, in a guest without a disk, of any file. That costs 20 KiB for each program that
//! ever wrote a file. So an empty group is kept for the next program without limits; pages that are already
//! charged to it do no harm there.

use crate::lock::lock;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Limit of groups that are kept: as many as programs can run at the same time.
const MAX: usize = 64;

/// Link count of a directory without subdirectories.
const EMPTY: u64 = 2;

/// Files that a program of root's may have changed in its own group, and their defaults. A file that the kernel
/// lacks counts as unchanged.
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

/// Groups in which nothing runs.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<PathBuf>>);

impl Pool {
    fn groups(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        lock(&self.0)
    }

    pub(super) fn take(&self) -> Option<PathBuf> {
        self.groups().pop()
    }

    /// Adds an empty group. Returns false if its settings were changed, or if the pool is full.
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
            // If this fails, the next agent removes the group.
            let _ = fs::remove_dir(dir);
        }
    }
}

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

    /// A directory that looks like a group.
    fn group() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, default) in DEFAULTS {
            fs::write(dir.path().join(file), format!("{default}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn a_group_that_its_program_has_changed_is_not_reused() {
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
    fn a_group_without_some_controllers_is_reused_and_the_pool_is_bounded() {
        let (pool, dir) = (Pool::default(), group());
        fs::remove_file(dir.path().join("memory.max")).unwrap();
        assert_eq!((0..2 * MAX).filter(|_| pool.keep(dir.path())).count(), MAX);
        assert_eq!(pool.take().as_deref(), Some(dir.path()));
    }
}
