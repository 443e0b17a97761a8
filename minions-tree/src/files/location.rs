//! A name in an open directory, and the operations on it.

use super::directory::{OpenDirectory, is_ours};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, renameat, symlinkat, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

/// Permission bits of a mode.
pub const MODE_BITS: u32 = 0o7777;

/// Set-user-id and set-group-id.
pub(crate) const SET_ID: u32 = 0o6000;

/// Number of attempts to find a free name, or to open a file that other processes remove and create at the same
/// time.
const ATTEMPTS: usize = 16;

/// Mode and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAttributes {
    /// Permission bits.
    pub mode: u32,
    /// User and group; `None` for those of this process.
    pub owner: Option<(u32, u32)>,
}

/// A name in an open directory.
#[derive(Debug)]
pub struct FileLocation {
    pub(super) directory: OpenDirectory,
    pub(super) name: OsString,
}

impl FileLocation {
    pub(super) fn new(directory: OpenDirectory, name: OsString) -> Self {
        Self { directory, name }
    }

    /// Opens the directory of a path that the agent has chosen. Links on the path are followed, because other users
    /// cannot change the agent's own paths. For paths of requests, see [`make`](Self::make).
    pub fn of_agent(path: &Path) -> io::Result<Self> {
        let directory = OpenDirectory::following_links(path.parent().ok_or(Errno::INVAL)?)?;
        Ok(Self::new(directory, path.file_name().ok_or(Errno::INVAL)?.to_owned()))
    }

    /// Returns the status of the file with this name, if it exists. A link is not followed.
    pub fn present(&self) -> io::Result<Option<Stat>> {
        match self.directory.look(&self.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reports whether only root or the agent's own user can have determined the owner, mode and content of `file`.
    ///
    /// The owner of the file alone does not show this: a user who owns the directory may have moved a file of root
    /// there, and a user who can write to the directory may have created a hard link in it to a file of root elsewhere.
    pub fn trusts(&self, file: &Stat) -> bool {
        is_ours(file.st_uid)
            && self.directory.is_ours()
            && (self.directory.is_closed() || file.st_nlink == 1)
    }

    /// Reports whether `file` belongs to root and cannot be a hard link created by another user.
    pub fn may_be_appended_to(&self, file: &Stat) -> bool {
        is_ours(file.st_uid) && (self.directory.is_closed() || file.st_nlink == 1)
    }

    /// Replaces the file with this name, of any type, with a new file that contains `content`. Even after a power
    /// failure, the name belongs to either the old or the new file. On failure, nothing has changed, and no
    /// temporary file remains.
    pub fn replace(&self, content: &[u8], attributes: FileAttributes) -> io::Result<()> {
        let (entry, mut file) = TemporaryEntry::file(&self.directory)?;
        file.write_all(content)?;
        if let Some((user, group)) = attributes.owner {
            fchown(&file, Some(user), Some(group))?;
        }
        // After the owner, because a change of the owner clears set-user-id.
        file.set_permissions(Permissions::from_mode(attributes.mode))?;
        file.sync_all()?;
        entry.become_entry(&self.name)
    }

    /// Replaces the file with this name, of any type, with a symbolic link to `target`, as safely as
    /// [`replace`](Self::replace).
    pub fn replace_by_link(&self, target: &Path) -> io::Result<()> {
        let make = |name: &OsStr| symlinkat(target, &self.directory, name);
        let (entry, ()) = TemporaryEntry::make(&self.directory, make)?;
        entry.become_entry(&self.name)
    }

    /// Opens the file with this name for appending, or creates it. The caller must check the file with `fstat`
    /// before it writes, because another process may have replaced the file since [`present`](Self::present).
    pub fn open_to_append(&self, mode: u32) -> io::Result<File> {
        // The agent must not acquire a controlling terminal, and must not wait for the reader of a pipe.
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = flags | OFlags::NOCTTY | OFlags::NONBLOCK;
        let new = flags | OFlags::CREATE | OFlags::EXCL;
        for _ in 0..ATTEMPTS {
            match openat(&self.directory, &self.name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                opened => return Ok(opened?.into()),
            }
            match openat(&self.directory, &self.name, new, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => {}
                made => return Ok(made?.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

/// Reports whether `file` is a regular file: not a directory, link, device, socket or pipe.
pub fn is_regular(file: &Stat) -> bool {
    FileType::from_raw_mode(file.st_mode) == FileType::RegularFile
}

/// New entry of a directory with a random name, removed on drop.
#[derive(Debug)]
pub(super) struct TemporaryEntry<'a> {
    pub(super) directory: &'a OpenDirectory,
    pub(super) name: OsString,
}

impl<'a> TemporaryEntry<'a> {
    /// Finds a free name, and creates the entry with `create`, which must fail with `EEXIST` if the name is taken.
    pub(super) fn make<T>(
        directory: &'a OpenDirectory,
        mut create: impl FnMut(&OsStr) -> Result<T, Errno>,
    ) -> io::Result<(Self, T)> {
        for _ in 0..ATTEMPTS {
            // Unpredictable, because a user who can write to the directory could occupy predictable names in advance.
            let random = RandomState::new().build_hasher().finish();
            let name = OsString::from(format!(".minions-{random:016x}"));
            match create(&name) {
                Err(Errno::EXIST) => {}
                made => {
                    return made.map(|made| (Self { directory, name }, made)).map_err(Into::into);
                }
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Makes a file with mode 0600.
    pub(super) fn file(directory: &'a OpenDirectory) -> io::Result<(Self, File)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let own = Mode::RUSR | Mode::WUSR;
        let (entry, file) =
            Self::make(directory, |name| openat(directory, name, flags | OFlags::CLOEXEC, own))?;
        Ok((entry, file.into()))
    }

    /// Renames the entry to `name`, and writes the directory to disk.
    fn become_entry(mut self, name: &OsStr) -> io::Result<()> {
        renameat(self.directory, &self.name, self.directory, name)?;
        // The temporary name no longer exists, so there is nothing to remove on drop.
        self.name.clear();
        self.directory.sync()
    }
}

impl Drop for TemporaryEntry<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // Ignored, because the caller reports the error that led here.
            let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
        }
    }
}
