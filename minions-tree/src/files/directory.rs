//! An open directory, and the users that may change its entries.

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, open, openat, statat};
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITE: u32 = 0o020;
const STICKY: u32 = 0o1000;

/// Open directory, usable only as a base for its entries (`O_PATH`).
#[derive(Debug)]
pub(super) struct OpenDirectory {
    fd: OwnedFd,
    owner: u32,
    is_writable_by_others: bool,
    is_sticky: bool,
}

impl OpenDirectory {
    pub(super) fn root() -> io::Result<Self> {
        Self::following_links(Path::new("/"))
    }

    /// Opens the directory at `path`, following links.
    pub(super) fn following_links(path: &Path) -> io::Result<Self> {
        Self::of(open(path, Self::flags(), Mode::empty())?)
    }

    /// Enters `name`, which must be a directory, not a link to one.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` for a link and for any other file.
    pub(super) fn enter(&self, name: &OsStr) -> io::Result<Self> {
        Self::of(openat(&self.fd, name, Self::flags() | OFlags::NOFOLLOW, Mode::empty())?)
    }

    /// Returns the flags for `open`. `DIRECTORY` also triggers an automount.
    fn flags() -> OFlags {
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
    }

    pub(super) fn of(fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        let group_is_others = stat.st_gid != 0;
        let is_writable_by_others = stat.st_mode & OTHERS_WRITE != 0
            || (group_is_others && stat.st_mode & GROUP_WRITE != 0);
        Ok(Self {
            fd,
            owner: stat.st_uid,
            is_writable_by_others,
            is_sticky: stat.st_mode & STICKY != 0,
        })
    }

    /// Reports whether the directory belongs to root or the agent's user, so that no other user controls it.
    pub(super) fn is_ours(&self) -> bool {
        is_ours(self.owner)
    }

    /// Reports whether only root can create, rename and remove entries.
    pub(super) fn is_closed(&self) -> bool {
        self.is_ours() && !self.is_writable_by_others
    }

    /// Reports whether other users can rename or remove an entry of root. In a sticky directory they cannot.
    pub(super) fn entries_can_be_moved(&self) -> bool {
        !self.is_ours() || (self.is_writable_by_others && !self.is_sticky)
    }

    /// Returns the status of the entry `name`; a symbolic link is not followed.
    pub(super) fn look(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Writes the directory's entries to disk, so that they survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        // fsync fails on an `O_PATH` descriptor.
        let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::fsync(openat(&self.fd, ".", readable, Mode::empty())?)?)
    }
}

impl AsFd for OpenDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reports whether a file's owner is root or the agent's own user.
pub(super) fn is_ours(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}
