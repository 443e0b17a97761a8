//! An open directory, and who may change its entries.

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, open, openat, statat};
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITE: u32 = 0o020;
const STICKY: u32 = 0o1000;

/// Opened for nothing but to name its entries by (`O_PATH`).
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    owner: u32,
    is_writable_by_others: bool,
    is_sticky: bool,
}

impl Directory {
    pub(super) fn root() -> io::Result<Self> {
        Self::of(open("/", Self::flags(), Mode::empty())?)
    }

    /// Enters `name`, which must be a directory itself, not a link to one.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` for a link and for any other file.
    pub(super) fn enter(&self, name: &OsStr) -> io::Result<Self> {
        Self::of(openat(&self.fd, name, Self::flags() | OFlags::NOFOLLOW, Mode::empty())?)
    }

    /// `DIRECTORY` makes the kernel mount what is mounted on demand.
    fn flags() -> OFlags {
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
    }

    fn of(fd: OwnedFd) -> io::Result<Self> {
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

    /// Whether it is root's, so that no other user rules over its entries.
    pub(super) fn is_ours(&self) -> bool {
        is_ours(self.owner)
    }

    /// Whether only root makes, renames and removes entries.
    pub(super) fn is_closed(&self) -> bool {
        self.is_ours() && !self.is_writable_by_others
    }

    /// Whether others can rename or remove an entry of root's. In a sticky directory they can't.
    pub(super) fn entries_can_be_moved(&self) -> bool {
        !self.is_ours() || (self.is_writable_by_others && !self.is_sticky)
    }

    /// What `name` is itself, a link not followed.
    pub(super) fn look(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes the names in it last, after a power cut too.
    pub(super) fn sync(&self) -> io::Result<()> {
        // A descriptor that only names can't do it.
        let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::fsync(openat(&self.fd, ".", readable, Mode::empty())?)?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a file's owner is root, or the agent's own user where that is another one.
pub(super) fn is_ours(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}
