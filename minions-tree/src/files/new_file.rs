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

/// Handling of a name that already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameConflict {
    /// The new file replaces the old one.
    Replace,
    /// The new file is not published.
    Fail,
}

/// New file in the directory of a [`FileLocation`]. Unless it is published, it is removed on drop.
///
/// If the file system supports `O_TMPFILE`, the file has no name until it is published, so the kernel removes it even
/// after SIGKILL. Otherwise it has a random name, which remains if a signal ends the process.
#[derive(Debug)]
pub struct NewFile<'a> {
    directory: &'a OpenDirectory,
    name: &'a OsStr,
    file: File,
    /// `None` for a file without a name.
    entry: Option<TemporaryEntry<'a>>,
}

impl FileLocation {
    /// Creates an empty file, whose mode is 0600 until [`set`](NewFile::set) changes it.
    pub fn begin_file(&self) -> io::Result<NewFile<'_>> {
        match self.begin_unnamed() {
            // Kernels and file systems without this feature return one of these.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                self.begin_named()
            }
            begun => Ok(begun?),
        }
    }

    fn begin_unnamed(&self) -> Result<NewFile<'_>, Errno> {
        let (directory, name) = (&self.directory, self.name.as_os_str());
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)?.into();
        Ok(NewFile { directory, name, file, entry: None })
    }

    fn begin_named(&self) -> io::Result<NewFile<'_>> {
        let (directory, name) = (&self.directory, self.name.as_os_str());
        let (entry, file) = TemporaryEntry::file(directory)?;
        Ok(NewFile { directory, name, file, entry: Some(entry) })
    }
}

impl FileLocation {
    /// Writes the directory to disk, so that a new name survives a power cut.
    pub fn sync_directory(&self) -> io::Result<()> {
        sync_if_permitted(&self.directory)
    }
}

impl NewFile<'_> {
    /// Returns the file, so that the caller can write its content.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Sets owner and mode, and writes everything to disk.
    pub fn complete(&self, attributes: FileAttributes) -> io::Result<()> {
        self.set(attributes)?;
        self.file.sync_all()
    }

    /// Sets owner and mode.
    pub fn set(&self, attributes: FileAttributes) -> io::Result<()> {
        if let Some((user, group)) = attributes.owner {
            fchown(&self.file, Some(user), Some(group))?;
        }
        // After the owner, because a change of the owner clears set-user-id.
        self.file.set_permissions(Permissions::from_mode(attributes.mode))
    }

    /// Gives the file its name, atomically.
    pub fn publish(self, conflict: NameConflict) -> io::Result<()> {
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

/// Gives the unnamed `file` the name `name`.
fn link(file: &File, directory: &OpenDirectory, name: &OsStr) -> Result<(), Errno> {
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, itself, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// Writes the directory to disk, unless this user may change the directory but not read it.
pub(super) fn sync_if_permitted(directory: &OpenDirectory) -> io::Result<()> {
    match directory.sync() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    const OWN: FileAttributes = FileAttributes { mode: 0o640, owner: None };

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn files_with_and_without_a_temporary_name_behave_alike() {
        for named in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let location = FileLocation::of_agent(&dir.path().join("file")).unwrap();
            let begin = |content: &[u8]| {
                let begun = if named { location.begin_named() } else { location.begin_file() };
                let mut new = begun.unwrap();
                new.file().write_all(content).unwrap();
                new.complete(OWN).unwrap();
                new
            };
            let new = begin(b"one");
            assert_eq!(names(dir.path()), usize::from(named));
            drop(new);
            assert_eq!(names(dir.path()), 0);
            begin(b"one").publish(NameConflict::Fail).unwrap();
            let error = begin(b"two").publish(NameConflict::Fail).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::EXIST));
            assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"one");
            begin(b"two").publish(NameConflict::Replace).unwrap();
            assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"two");
            let mode = fs::metadata(dir.path().join("file")).unwrap().permissions().mode();
            assert_eq!((mode & 0o7777, names(dir.path())), (0o640, 1));
        }
    }
}
