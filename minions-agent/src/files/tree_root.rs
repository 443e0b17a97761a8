//! A directory in which no name, link or `..` leads out of it.

use super::directory::OpenDirectory;
use super::location::{FileLocation, TemporaryEntry};
use super::new_file::{NameConflict, sync_if_permitted};
use super::resolve::ResolveError;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, linkat, mkdirat, mknodat, openat, openat2,
    statat, symlinkat,
};
use rustix::io::Errno;
use rustix::process::umask;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Mode of directories until their final mode is set.
const OWN: Mode = Mode::RWXU;

/// Mode of missing directories that are created in the tree; the umask is applied.
const DEFAULT: Mode = Mode::from_raw_mode(0o777);

/// Open directory in which names are resolved without links, and without leaving it.
#[derive(Debug)]
pub(crate) struct TreeRoot(OwnedFd);

impl TreeRoot {
    /// Opens the directory at an absolute path. If `parents` is set, creates it and its parents if they are missing.
    /// Also returns whether the directory itself was created.
    pub(crate) fn open(path: &Path, parents: bool) -> Result<(Self, bool), ResolveError> {
        let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if path.file_name().is_none() {
            return Ok((Self(rustix::fs::open(path, readable, Mode::empty())?), false));
        }
        let location = if parents { FileLocation::make(path)? } else { FileLocation::find(path)? };
        let is_new = parents
            && match mkdirat(&location.directory, &location.name, DEFAULT) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
        // The last name is resolved as part of a path, so that a link there is subject to the same rules.
        let inside = FileLocation::find(&path.join("x"))?;
        let directory = openat(&inside.directory, ".", readable, Mode::empty())?;
        Ok((Self(directory), is_new))
    }

    /// Resolves a directory and a name in it. Creates missing directories.
    pub(crate) fn locate(&self, directory: &[u8], name: &[u8]) -> io::Result<FileLocation> {
        let opened = match self.enter(directory) {
            Err(Errno::NOENT) => {
                self.make_with(directory, DEFAULT)?;
                self.enter(directory)
            }
            opened => opened,
        };
        Ok(FileLocation::new(OpenDirectory::of(opened?)?, OsStr::from_bytes(name).to_owned()))
    }

    /// Creates a directory and its parents, and opens it for reading. The directory itself, but not its parents, is
    /// closed to other users until it gets its final mode.
    pub(crate) fn make_directories(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.make_with(path, OWN)?;
        Ok(self.open_beneath(path, OFlags::RDONLY)?)
    }

    fn make_with(&self, path: &[u8], mode: Mode) -> rustix::io::Result<()> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]).filter(|end| *end > 0) {
            let (parent, name) = match path[..end].iter().rposition(|byte| *byte == b'/') {
                Some(at) => (&path[..at], &path[at + 1..end]),
                None => (&b""[..], &path[..end]),
            };
            let mode = if end == path.len() { mode } else { DEFAULT };
            match mkdirat(self.enter(parent)?, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn enter(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open_beneath(path, OFlags::PATH)
    }

    /// Opens a directory in the tree; an empty path is the root.
    pub(crate) fn open_beneath(&self, path: &[u8], access: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.0, path, flags, Mode::empty(), resolve)
    }

    /// Makes `location` a hard link to a regular file in the tree.
    pub(crate) fn link(&self, target: (&[u8], &[u8]), location: &FileLocation) -> io::Result<()> {
        let (directory, name) = (self.enter(target.0)?, target.1);
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::PERM.into());
        }
        let present = location.present()?;
        if present.is_some_and(|file| (file.st_dev, file.st_ino) == (stat.st_dev, stat.st_ino)) {
            // The kernel does nothing if both names of a rename are the same file.
            return Ok(());
        }
        location.publish_with(
            |temporary| linkat(&directory, name, &location.directory, temporary, AtFlags::empty()),
            |_, _| Ok(()),
        )
    }
}

impl AsFd for TreeRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Creates a name whose mode the umask must not change. The mode is never changed afterwards: a user who may write to the
/// directory could have replaced the name by a link to another file. Only for a process with one thread.
fn with_exact_mode<T>(create: impl FnOnce() -> T) -> T {
    let before = umask(Mode::empty());
    let created = create();
    umask(before);
    created
}

impl FileLocation {
    /// Makes the name a symbolic link, after `finish` has set its attributes.
    pub(crate) fn publish_link(
        &self,
        target: &OsStr,
        finish: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        self.publish_with(|temporary| symlinkat(target, &self.directory, temporary), finish)
    }

    /// Makes the name a named pipe, after `finish` has set its attributes.
    pub(crate) fn publish_fifo(
        &self,
        mode: Mode,
        finish: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        self.publish_with(
            |temporary| {
                with_exact_mode(|| mknodat(&self.directory, temporary, FileType::Fifo, mode, 0))
            },
            finish,
        )
    }

    fn publish_with(
        &self,
        make: impl FnMut(&OsStr) -> Result<(), Errno>,
        finish: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        let (entry, ()) = TemporaryEntry::make(&self.directory, make)?;
        let name: OsString = entry.name.clone();
        finish(self.directory.as_fd(), &name)?;
        entry.rename(&self.name, NameConflict::Replace)
    }

    /// Creates a directory with exactly this mode, regardless of the umask. The kernel ignores set-user-id and
    /// set-group-id here.
    pub(crate) fn make_directory(&self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        Ok(with_exact_mode(|| mkdirat(&self.directory, &self.name, mode))?)
    }

    /// Renames this name to another one.
    pub(crate) fn rename_to(&self, to: &Self, no_replace: bool) -> io::Result<()> {
        let flags = match no_replace {
            true => rustix::fs::RenameFlags::NOREPLACE,
            false => rustix::fs::RenameFlags::empty(),
        };
        rustix::fs::renameat_with(&self.directory, &self.name, &to.directory, &to.name, flags)?;
        sync_if_permitted(&to.directory)
    }

    /// Returns the directory and the name.
    pub(crate) fn parts(&self) -> (BorrowedFd<'_>, &OsStr) {
        (self.directory.as_fd(), &self.name)
    }
}
