//! A cpio archive in the kernel's format ("newc"), written without root privileges.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use cpio::newc;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// File tree that belongs to root, except where stated otherwise. Paths have no leading slash.
#[derive(Debug, Default)]
pub(crate) struct CpioArchive {
    // Sorted, so that a directory comes before its contents.
    entries: BTreeMap<String, ArchiveEntry>,
}

#[derive(Debug)]
struct ArchiveEntry {
    mode: u32,
    owner: u32,
    content: Vec<u8>,
}

impl CpioArchive {
    pub(crate) fn directory(&mut self, path: &str, permissions: u32) {
        self.insert(path, DIRECTORY | permissions, Vec::new());
    }

    /// Adds a directory that belongs to the user and group with the number `owner`.
    pub(crate) fn home(&mut self, path: &str, owner: u32) {
        self.directory(path, 0o755);
        if let Some(entry) = self.entries.get_mut(path) {
            entry.owner = owner;
        }
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: impl Into<Vec<u8>>) {
        self.insert(path, REGULAR | permissions, content.into());
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, SYMLINK | 0o777, target.into());
    }

    /// Adds the entry and its parent directories, which get the usual permissions.
    fn insert(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert_with(|| ArchiveEntry {
                mode: DIRECTORY | 0o755,
                owner: 0,
                content: Vec::new(),
            });
        }
        self.entries.insert(path.to_owned(), ArchiveEntry { mode, owner: 0, content });
    }

    /// Writes the whole archive. The same tree results in the same bytes.
    pub(crate) fn write(&self, mut out: impl Write) -> io::Result<()> {
        for ((path, entry), inode) in self.entries.iter().zip(1..) {
            let size = u32::try_from(entry.content.len()).map_err(io::Error::other)?;
            let mut writer = newc::Builder::new(path)
                .ino(inode)
                .mode(entry.mode)
                .uid(entry.owner)
                .gid(entry.owner)
                .nlink(1)
                .write(&mut out, size);
            writer.write_all(&entry.content)?;
            writer.finish()?;
        }
        newc::trailer(&mut out)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    type Found = (String, u32, u32, Vec<u8>);

    fn read_back(mut bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        loop {
            let mut reader = newc::Reader::new(bytes).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                return found;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            found.push((entry.name().to_owned(), entry.mode(), entry.uid(), content));
            bytes = reader.finish().unwrap();
        }
    }

    #[test]
    fn entries_are_read_back_with_directories_first() {
        let mut archive = CpioArchive::default();
        archive.file("usr/bin/tool", 0o755, "x");
        archive.symlink("bin/sh", "busybox");
        archive.home("home/alice", 1000);
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        let entry = |path: &str, mode, owner, content: &str| {
            (path.to_owned(), mode, owner, content.as_bytes().to_vec())
        };
        let expected = [
            entry("bin", 0o040_755, 0, ""),
            entry("bin/sh", 0o120_777, 0, "busybox"),
            entry("home", 0o040_755, 0, ""),
            entry("home/alice", 0o040_755, 1000, ""),
            entry("usr", 0o040_755, 0, ""),
            entry("usr/bin", 0o040_755, 0, ""),
            entry("usr/bin/tool", 0o100_755, 0, "x"),
        ];
        assert_eq!(read_back(&bytes), expected);
    }
}
