//! Watched directories, by their watch descriptors.

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// Names of the watched directories, relative to the watched file, whose own name is empty.
#[derive(Debug, Default)]
pub(super) struct WatchTable {
    names: HashMap<i32, Vec<u8>>,
    memory: usize,
}

/// Limit of memory for the names, in bytes.
const MAX_MEMORY: usize = 16 * 1024 * 1024;

impl WatchTable {
    /// Largest number of watched directories.
    pub(super) const MAX: usize = 65_536;

    /// Opens a directory of this name, without following links.
    pub(super) fn open(root: OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
        if name.is_empty() {
            return root
                .try_clone()
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(root, name, flags, Mode::empty(), resolve)
    }

    /// Adds a directory.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the directories, or the bytes of their names, exceed the limit.
    pub(super) fn insert(&mut self, watch: i32, name: Vec<u8>) -> Result<(), Errno> {
        self.memory += name.len();
        if let Some(old) = self.names.insert(watch, name) {
            self.memory -= old.len();
        }
        let fits = self.names.len() <= Self::MAX && self.memory <= MAX_MEMORY;
        if fits { Ok(()) } else { Err(Errno::NOSPC) }
    }

    pub(super) fn path(&self, watch: i32) -> Option<&[u8]> {
        self.names.get(&watch).map(Vec::as_slice)
    }

    pub(super) fn remove(&mut self, watch: i32) {
        if let Some(name) = self.names.remove(&watch) {
            self.memory -= name.len();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Changes the names of a moved directory and of everything beneath it.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        for name in self.names.values_mut().filter(|name| is_in(from, name)) {
            let moved = [to, &name[from.len()..]].concat();
            self.memory = self.memory - name.len() + moved.len();
            *name = moved;
        }
    }

    /// Removes a directory and everything beneath it, and returns their watch descriptors.
    pub(super) fn take_tree(&mut self, directory: &[u8]) -> Vec<i32> {
        let inside = self.names.iter().filter(|(_, name)| is_in(directory, name));
        let watches: Vec<_> = inside.map(|(watch, _)| *watch).collect();
        watches.iter().for_each(|watch| self.remove(*watch));
        watches
    }
}

/// Reports whether `name` is this directory or is beneath it.
fn is_in(directory: &[u8], name: &[u8]) -> bool {
    let rest = name.strip_prefix(directory);
    rest.is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_tree_keeps_its_watches_under_new_names() {
        let mut table = WatchTable::default();
        for (watch, name) in [(1, &b""[..]), (2, b"a"), (3, b"a/b"), (4, b"ab")] {
            table.insert(watch, name.to_vec()).unwrap();
        }
        table.rename(b"a", b"c/d");
        assert_eq!(table.path(2), Some(&b"c/d"[..]));
        assert_eq!(table.path(3), Some(&b"c/d/b"[..]));
        assert_eq!(table.path(4), Some(&b"ab"[..]));
        let mut taken = table.take_tree(b"c");
        taken.sort_unstable();
        assert_eq!(taken, [2, 3]);
        assert_eq!(table.memory, 2);
        assert_eq!((table.path(3), table.path(1)), (None, Some(&b""[..])));
    }

    #[test]
    fn the_number_of_watches_is_limited() {
        let mut table = WatchTable::default();
        for watch in 0..i32::try_from(WatchTable::MAX).unwrap() {
            table.insert(watch, vec![b'x']).unwrap();
        }
        assert_eq!(table.insert(-1, vec![b'x']), Err(Errno::NOSPC));
    }
}
