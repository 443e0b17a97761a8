//! A file that gets its name only when it is complete.

use super::directory::OpenDirectory;
use super::location::{FileAttributes, FileLocation, TemporaryEntry};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat_with};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, fchown};

/// Handling of a name that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameConflict {
    Replace,
    Fail,
}

/// New file in the directory of a [`FileLocation`]. Unless it is published, it is removed on drop.
///
/// Where the file system supports it, the file has no name before (`O_TMPFILE`), so the kernel removes it even
/// after SIGKILL. Elsewhere it has a random name, which remains after SIGKILL.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    directory: &'a OpenDirectory,
    name: &'a OsStr,
    file: File,
    /// `None` for a file without a name.
    entry: Option<TemporaryEntry<'a>>,
}

impl FileLocation {
    /// Creates an empty file, with mode 0600 until [`complete`](NewFile::complete).
    pub(crate) fn begin_file(&self) -> io::Result<NewFile<'_>> {
        let (directory, name) = (&self.directory, self.name.as_os_str());
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(directory, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(NewFile { directory, name, file: file.into(), entry: None }),
            // Kernels and file systems without this feature return one of these.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                let (entry, file) = TemporaryEntry::file(directory)?;
                Ok(NewFile { directory, name, file, entry: Some(entry) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl FileLocation {
    /// Writes the directory to disk, so that a new name survives a power cut.
    pub(crate) fn sync_directory(&self) -> io::Result<()> {
        sync_if_permitted(&self.directory)
    }
}

impl NewFile<'_> {
    /// Returns the file, for its content.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Sets owner and mode, and writes everything to disk.
    pub(crate) fn complete(&self, attributes: FileAttributes) -> io::Result<()> {
        self.set(attributes)?;
        self.file.sync_all()
    }

    /// Sets owner and mode.
    pub(crate) fn set(&self, attributes: FileAttributes) -> io::Result<()> {
        if let Some((user, group)) = attributes.owner {
            fchown(&self.file, Some(user), Some(group))?;
        }
        // After the owner, because a change of the owner clears set-user-id.
        self.file.set_permissions(Permissions::from_mode(attributes.mode))
    }

    /// Gives the file its name, atomically.
    pub(crate) fn publish(self, conflict: NameConflict) -> io::Result<()> {
        let Self { directory, name, file, entry } = self;
        let entry = match entry {
            Some(entry) => entry,
            None => match (link(&file, directory, name), conflict) {
                (Ok(()), _) => return Ok(()),
                (Err(Errno::EXIST), NameConflict::Replace) => {
                    TemporaryEntry::make(directory, |temporary| link(&file, directory, temporary))?
                        .0
                }
                (Err(error), _) => return Err(error.into()),
            },
        };
        entry.rename(name, conflict)
    }
}

impl TemporaryEntry<'_> {
    pub(super) fn rename(mut self, name: &OsStr, conflict: NameConflict) -> io::Result<()> {
        let flags = match conflict {
            NameConflict::Replace => RenameFlags::empty(),
            NameConflict::Fail => RenameFlags::NOREPLACE,
        };
        renameat_with(self.directory, &self.name, self.directory, name, flags)?;
        // The temporary name no longer exists, so there is nothing to remove on drop.
        self.name.clear();
        Ok(())
    }
}

/// Gives a file without a name this one.
fn link(file: &File, directory: &OpenDirectory, name: &OsStr) -> Result<(), Errno> {
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, itself, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// Writes the directory to disk, unless this user may change, but not read it.
pub(super) fn sync_if_permitted(directory: &OpenDirectory) -> io::Result<()> {
    match directory.sync() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}
