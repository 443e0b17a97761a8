//! A directory in which no name, link or `..` leads out of it.

use super::directory::OpenDirectory;
use super::location::{FileLocation, TemporaryEntry};
use super::new_file::{NameConflict, sync_if_permitted};
use super::resolve::ResolveError;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, chmodat, fstat, linkat, mkdirat,
    mknodat, openat, openat2, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::OsStr;
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
pub struct TreeRoot(OwnedFd);

impl TreeRoot {
    /// Opens the directory at an absolute path. If `parents` is set, creates it and its parents if they are missing.
    /// Also returns whether the directory itself was created.
    pub fn open(path: &Path, parents: bool) -> Result<(Self, bool), ResolveError> {
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

    /// Opens the directory at a path, which may lead through any links: for paths that the user of this process has
    /// chosen.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn following_links(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens the directory `name` in this directory, and creates it if it is missing. Also returns whether it was
    /// created; then it is closed to other users until it gets its final mode.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` if the name is that of another file, also of a link.
    pub fn make_directory(&self, name: &[u8]) -> io::Result<(Self, bool)> {
        match new_directory(OpenDirectory::of(self.enter(b"")?)?, name) {
            Ok(made) => return Ok((Self(made), true)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let opened = self.open_beneath(name, OFlags::PATH);
        let opened = opened.map_err(|error| match error {
            Errno::LOOP => Errno::NOTDIR,
            error => error,
        });
        Ok((Self(opened?), false))
    }

    /// Resolves a directory and a name in it. Creates missing directories.
    pub fn locate(&self, directory: &[u8], name: &[u8]) -> io::Result<FileLocation> {
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
    pub fn make_directories(&self, path: &[u8]) -> io::Result<OwnedFd> {
        match self.open_beneath(path, OFlags::RDONLY) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        self.make_with(parent, DEFAULT)?;
        match new_directory(OpenDirectory::of(self.enter(parent)?)?, name) {
            Err(Errno::EXIST) => Ok(self.open_beneath(path, OFlags::RDONLY)?),
            made => Ok(made?),
        }
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
    pub fn open_beneath(&self, path: &[u8], access: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.0, path, flags, Mode::empty(), resolve)
    }

    /// Makes `location` a hard link to a file in the tree: a regular file, a symbolic link itself, or a named pipe.
    pub fn link(&self, target: (&[u8], &[u8]), location: &FileLocation) -> io::Result<()> {
        let (directory, name) = (self.enter(target.0)?, target.1);
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            _ => return Err(Errno::PERM.into()),
        }
        let present = location.present()?;
        if present.is_some_and(|file| (file.st_dev, file.st_ino) == (stat.st_dev, stat.st_ino)) {
            // The kernel does nothing if both names of a rename are the same file.
            return Ok(());
        }
        let link = |temporary: &OsStr| {
            linkat(&directory, name, &location.directory, temporary, AtFlags::empty())
        };
        let (entry, ()) = TemporaryEntry::make(&location.directory, link)?;
        entry.rename(&location.name, NameConflict::Replace)
    }
}

impl AsFd for TreeRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Creates the directory `name`, closed to other users, and opens it. It is opened before it has its name, so that no other user
/// can exchange it before.
fn new_directory(parent: OpenDirectory, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let io = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut private = PrivateDirectory::make(&parent).map_err(io)?;
    private.create(|directory, name| mkdirat(directory, name, OWN))?;
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(&private.fd, PrivateDirectory::FILE, readable, Mode::empty())?;
    match private.publish(OsStr::from_bytes(name), RenameFlags::NOREPLACE) {
        // The file system does not support the flag.
        Err(Errno::INVAL) => {
            mkdirat(&parent, name, OWN)?;
            openat(&parent, name, readable, Mode::empty())
        }
        published => published.map(|()| opened),
    }
}

/// New directory that only this user can change, so that other users cannot exchange the file in it. It is removed on
/// drop.
struct PrivateDirectory<'a> {
    entry: TemporaryEntry<'a>,
    fd: OwnedFd,
    /// True if the directory contains a file that this process created.
    has_file: bool,
}

impl<'a> PrivateDirectory<'a> {
    /// Name of the file in the directory.
    const FILE: &'static str = "file";

    fn make(directory: &'a OpenDirectory) -> io::Result<Self> {
        let make = |name: &OsStr| mkdirat(directory, name, OWN);
        let (mut entry, ()) = TemporaryEntry::make(directory, make)?;
        let name = std::mem::take(&mut entry.name);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(directory, &name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        // Another user may have exchanged the directory before it was opened.
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return Err(Errno::PERM.into());
        }
        entry.name = name;
        Ok(Self { entry, fd, has_file: false })
    }

    /// Creates the file. Another user may have exchanged the directory for another one that only this user can change, so
    /// a file that exists there is not this process's.
    fn create(
        &mut self,
        create: impl FnOnce(&OwnedFd, &'static str) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        create(&self.fd, Self::FILE)?;
        self.has_file = true;
        Ok(())
    }

    /// Renames the file to a name next to this directory.
    fn publish(mut self, name: &OsStr, flags: RenameFlags) -> rustix::io::Result<()> {
        renameat_with(&self.fd, Self::FILE, self.entry.directory, name, flags)?;
        self.has_file = false;
        Ok(())
    }
}

impl Drop for PrivateDirectory<'_> {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.entry.name);
        // Ignored, because the caller reports the error that led here.
        if self.has_file {
            let removed = unlinkat(&self.fd, Self::FILE, AtFlags::empty());
            let _ = removed.or_else(|_| unlinkat(&self.fd, Self::FILE, AtFlags::REMOVEDIR));
        }
        let _ = unlinkat(self.entry.directory, &name, AtFlags::REMOVEDIR);
    }
}

impl FileLocation {
    /// Makes the name a symbolic link, after `finish` has set its attributes.
    pub fn publish_link(
        &self,
        target: &OsStr,
        finish: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        let mut private = PrivateDirectory::make(&self.directory)?;
        private.create(|directory, name| symlinkat(target, directory, name))?;
        finish(private.fd.as_fd(), OsStr::new(PrivateDirectory::FILE))?;
        Ok(private.publish(&self.name, RenameFlags::empty())?)
    }

    /// Makes the name a named pipe, after `finish` has set its attributes.
    pub fn publish_fifo(
        &self,
        mode: Mode,
        finish: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        // The umask applies to the creation, so the mode is set afterwards, where no other user can exchange the pipe.
        let mut private = PrivateDirectory::make(&self.directory)?;
        let own = Mode::RUSR | Mode::WUSR;
        private.create(|directory, name| mknodat(directory, name, FileType::Fifo, own, 0))?;
        let name = OsStr::new(PrivateDirectory::FILE);
        chmodat(&private.fd, name, mode, AtFlags::empty())?;
        finish(private.fd.as_fd(), name)?;
        Ok(private.publish(&self.name, RenameFlags::empty())?)
    }

    /// Renames this name to another one.
    pub fn rename_to(&self, to: &Self, no_replace: bool) -> io::Result<()> {
        let flags = match no_replace {
            true => RenameFlags::NOREPLACE,
            false => RenameFlags::empty(),
        };
        renameat_with(&self.directory, &self.name, &to.directory, &to.name, flags)?;
        sync_if_permitted(&to.directory)
    }

    /// Returns the directory and the name.
    pub fn parts(&self) -> (BorrowedFd<'_>, &OsStr) {
        (self.directory.as_fd(), &self.name)
    }
}
