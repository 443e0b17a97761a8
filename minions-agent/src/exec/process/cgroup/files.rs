//! Files of a control group.

use rustix::fs::{Mode, OFlags, fstatfs, open, openat};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;

/// Longest text of a file that is read in one piece; the longest of those that are read so has 200 bytes.
const SHORT: usize = 1024;

/// Directory of a group, held open while its program runs. The program can then be ended even if another file system is
/// mounted over the tree, or the tree is unmounted.
#[derive(Debug)]
pub(super) struct GroupFiles {
    dir: PathBuf,
    fd: Option<OwnedFd>,
}

impl GroupFiles {
    /// Returns the files of a group in which no process is started, without a descriptor.
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir, fd: None }
    }

    /// Opens the directory of a group.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened, or is not in a cgroup v2 tree (`Unsupported`).
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(&dir, flags, Mode::empty())?;
        is_of_tree(&fd)?.then_some(()).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { dir, fd: Some(fd) })
    }

    /// Closes the descriptor.
    pub(super) fn close(&mut self) {
        self.fd = None;
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn read(&self, file: &str) -> io::Result<String> {
        let mut text = String::new();
        self.file(file, OFlags::RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Reads a file of at most [`SHORT`] bytes whose text the kernel writes in one piece, with one system call: any file
    /// but a list of processes.
    pub(super) fn read_short(&self, file: &str) -> io::Result<String> {
        let mut text = [0; SHORT];
        let len = self.file(file, OFlags::RDONLY)?.read(&mut text)?;
        Ok(String::from_utf8_lossy(&text[..len]).into_owned())
    }

    /// Writes to an existing file. Creates none: after an unmount the directory may be an ordinary one.
    pub(super) fn write(&self, file: &str, text: &str) -> io::Result<()> {
        self.file(file, OFlags::WRONLY)?.write_all(text.as_bytes())
    }

    fn file(&self, name: &str, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::CLOEXEC;
        let file = match &self.fd {
            Some(dir) => openat(dir, name, flags, Mode::empty()),
            None => open(self.dir.join(name), flags, Mode::empty()),
        };
        Ok(file?.into())
    }
}

/// Reports whether a directory is in a cgroup v2 tree.
pub(super) fn is_in_tree(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|dir| is_of_tree(dir).unwrap_or(false))
}

fn is_of_tree(fd: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(fd)?.f_type == CGROUP2)
}

/// Removes a group, unless processes run in it; returns true if they do.
pub(super) fn is_busy(dir: &Path) -> bool {
    fs::remove_dir(dir).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_another_file_system_is_not_a_group() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_in_tree(dir.path()) && !is_in_tree(Path::new("/nonexistent")));
        let opened = GroupFiles::open(dir.path().to_owned());
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn a_missing_file_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let group = GroupFiles::at(dir.path().to_owned());
        assert_eq!(group.write("memory.max", "1").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
