//! Operations `mkdir`, `rename` and `remove`.

use super::failure::{FileError, failed};
use super::file_write::locate;
use super::metadata;
use super::operation_output::OperationOutput;
use minions_proto::file_stream::FileHeader;
use minions_proto::message::{MakeDirectory, RemoveFile, RenameFile};
use minions_tree::files::FileLocation;
use minions_tree::walk::{ENTRIES_LEN, MAX_DEPTH, beneath, is_dot, open_directory, too_deep};
use rustix::fs::{AtFlags, FileType, Mode, RawDir, Stat, mkdirat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::umask;
use std::os::fd::AsFd;

/// Mode of a new directory if the request has none.
const DEFAULT_MODE: u32 = 0o755;

/// Serves `mkdir`.
pub(super) fn mkdir(op: &MakeDirectory, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let location = locate(&path, op.parents)?;
    match make_directory(&location, op.mode.unwrap_or(DEFAULT_MODE)) {
        Err(error) if op.parents && is_directory(&location, &error) => {}
        made => made.map_err(failed(&path, "mkdir"))?,
    }
    output.header(&metadata::of_stat(&existing(&location, &path)?).into())
}

/// Creates a directory with exactly this mode, regardless of the umask. The kernel ignores set-user-id and
/// set-group-id here. The mode is never changed afterwards: a user who may write to the parent could have replaced the
/// name by a link to another file. Only for a process with one thread, which a file operation is.
fn make_directory(location: &FileLocation, mode: u32) -> std::io::Result<()> {
    let (directory, name) = location.parts();
    let before = umask(Mode::empty());
    let made = mkdirat(directory, name, Mode::from_raw_mode(mode));
    umask(before);
    Ok(made?)
}

/// Reports whether `error` means that the name exists, and the name is that of a directory.
fn is_directory(location: &FileLocation, error: &std::io::Error) -> bool {
    let is = |file: Stat| FileType::from_raw_mode(file.st_mode) == FileType::Directory;
    error.kind() == std::io::ErrorKind::AlreadyExists
        && location.present().is_ok_and(|found| found.is_some_and(is))
}

/// Returns the status of a file that must exist.
fn existing(location: &FileLocation, path: &[u8]) -> Result<Stat, FileError> {
    let present = location.present().map_err(failed(path, "stat"))?;
    present.ok_or(Errno::NOENT).map_err(failed(path, "stat"))
}

/// Serves `rename`.
pub(super) fn rename(op: &RenameFile, output: &mut OperationOutput) -> Result<(), FileError> {
    let (path, to) = (op.path.bytes()?, op.to.bytes()?);
    let from = locate(&path, false)?;
    existing(&from, &path)?;
    let new = locate(&to, false)?;
    from.rename_to(&new, op.no_replace).map_err(failed(&to, "rename"))?;
    output.header(&metadata::of_stat(&existing(&new, &to)?).into())
}

/// Serves `remove`.
pub(super) fn remove(op: &RemoveFile, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let location = locate(&path, false)?;
    let metadata = metadata::of_stat(&existing(&location, &path)?);
    let (directory, name) = location.parts();
    let mut removal = TreeRemoval { output, recursive: op.recursive, count: 0 };
    removal.remove(directory, name.as_encoded_bytes(), &path, 0)?;
    let count = Some(removal.count);
    output.header(&FileHeader { count, ..metadata.into() })
}

/// A removal in progress.
struct TreeRemoval<'a> {
    output: &'a mut OperationOutput,
    recursive: bool,
    count: u64,
}

impl TreeRemoval<'_> {
    /// Removes one name. Symbolic links are removed, never followed.
    fn remove(
        &mut self,
        directory: impl AsFd,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), FileError> {
        let stat =
            statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(path, "stat"))?;
        let mut flags = AtFlags::empty();
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if self.recursive {
                self.remove_entries(&directory, name, path, depth)?;
            }
            flags = AtFlags::REMOVEDIR;
        }
        unlinkat(&directory, name, flags).map_err(failed(path, "remove"))?;
        self.count += 1;
        Ok(())
    }

    /// Removes the entries of a directory. An entry that cannot be removed is reported as a warning, and then the
    /// directory cannot be removed either.
    fn remove_entries(
        &mut self,
        directory: impl AsFd,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), FileError> {
        if depth >= MAX_DEPTH {
            return Err(too_deep(path, "remove"));
        }
        let opened = open_directory(directory, name).map_err(failed(path, "open"))?;
        let mut buffer = Vec::with_capacity(ENTRIES_LEN);
        let mut entries = RawDir::new(&opened, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed(path, "list"))?;
            if is_dot(entry.file_name()) {
                continue;
            }
            let name = entry.file_name().to_bytes();
            match self.remove(&opened, name, &beneath(path, name), depth + 1) {
                Err(error) if !error.is_missing() => self.output.warn(&error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}
