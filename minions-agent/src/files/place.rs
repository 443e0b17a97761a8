//! A name in an open directory, and what is done with it.

use super::directory::{Directory, is_ours};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, fchown};

/// Attempts to find a name that is free, or to open a file that others remove and make meanwhile.
const ATTEMPTS: usize = 16;

/// A file's attributes besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits.
    pub(crate) mode: u32,
    /// User and group; `None`: ours.
    pub(crate) owner: Option<(u32, u32)>,
}

/// A name in an open directory.
#[derive(Debug)]
pub(crate) struct Place {
    directory: Directory,
    name: OsString,
}

impl Place {
    pub(super) fn new(directory: Directory, name: OsString) -> Self {
        Self { directory, name }
    }

    /// The file of that name, if there is one. A link is not followed.
    pub(crate) fn present(&self) -> io::Result<Option<Stat>> {
        match self.directory.look(&self.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether nobody but root had a say in a file's owner, mode and content.
    ///
    /// A file of root's in somebody's own directory was put there by that user. Where everybody may
    /// write, another name of a file of root's may have been (a hard link).
    pub(crate) fn trusts(&self, file: &Stat) -> bool {
        is_ours(file.st_uid)
            && self.directory.is_ours()
            && (self.directory.is_closed() || file.st_nlink == 1)
    }

    /// Whether `file` is root's and not one that a user has given another name (a hard link).
    pub(crate) fn may_be_appended_to(&self, file: &Stat) -> bool {
        is_ours(file.st_uid) && (self.directory.is_closed() || file.st_nlink == 1)
    }

    /// Puts a file with `content` there, in place of whatever has this name: even after a power cut it is
    /// the old one or the new one. On failure nothing has changed, and nothing is left behind.
    pub(crate) fn replace(&self, content: &[u8], attributes: Attributes) -> io::Result<()> {
        let mut temporary = Temporary::make(&self.directory)?;
        temporary.file.write_all(content)?;
        if let Some((user, group)) = attributes.owner {
            fchown(&temporary.file, Some(user), Some(group))?;
        }
        // After the owner: a change of owner takes set-user-id away.
        temporary.file.set_permissions(Permissions::from_mode(attributes.mode))?;
        temporary.file.sync_all()?;
        temporary.become_file(&self.name)?;
        self.directory.sync()
    }

    /// Opens the file of that name for appending, or makes it. To be looked at (`fstat`) before it is
    /// written to: others may have put another one there since it was last seen.
    pub(crate) fn open_to_append(&self, mode: u32) -> io::Result<File> {
        // Without a controlling terminal, and without waiting for a pipe's reader.
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

/// Whether it is neither a directory nor a link, device, socket or pipe.
pub(crate) fn is_regular(file: &Stat) -> bool {
    FileType::from_raw_mode(file.st_mode) == FileType::RegularFile
}

/// A new file that nobody else can open, removed when it is dropped.
struct Temporary<'a> {
    directory: &'a Directory,
    name: OsString,
    file: File,
}

impl<'a> Temporary<'a> {
    fn make(directory: &'a Directory) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let own = Mode::RUSR | Mode::WUSR;
        for _ in 0..ATTEMPTS {
            // Not to be guessed: whoever may write there could take all names.
            let random = RandomState::new().build_hasher().finish();
            let name = OsString::from(format!(".minions-{random:016x}"));
            match openat(directory, &name, flags | OFlags::CLOEXEC, own) {
                Err(Errno::EXIST) => {}
                made => return Ok(Self { directory, name, file: made?.into() }),
            }
        }
        Err(Errno::EXIST.into())
    }

    fn become_file(mut self, name: &OsStr) -> io::Result<()> {
        renameat(self.directory, &self.name, self.directory, name)?;
        // Nothing is left to be removed.
        self.name.clear();
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // What can't be removed stays; the error that led here is the one to be told.
            let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
        }
    }
}
