//! Changes of directory entries: `mkdir`, `rmdir`, `remove`, `rename`, `symlink`, `link`.

use super::super::failure::{FileError, failed};
use super::{MODE_BITS, path, target};
use minions_proto::file_session::{
    LinkFile, MakeSessionDirectory, PathRequest, RenameEntry, SymlinkFile,
};
use rustix::fs::{AtFlags, CWD, Mode, RenameFlags};
use rustix::io::Errno;

/// Mode of a new directory if the request has none; the umask of the process (022) removes the write permissions of
/// group and others.
const DEFAULT_MODE: u32 = 0o777;

/// Serves `mkdir`.
pub(super) fn mkdir(op: &MakeSessionDirectory) -> Result<(), FileError> {
    let path = path(&op.path)?;
    let mode = op.mode.unwrap_or(DEFAULT_MODE);
    if mode > MODE_BITS {
        let reason = "`mode` must be at most 4095 (0o7777)";
        return Err(FileError::refusal(Errno::INVAL, &path, "mkdir", reason));
    }
    rustix::fs::mkdir(&path[..], Mode::from_raw_mode(mode)).map_err(failed(&path, "mkdir"))
}

/// Serves `rmdir`.
pub(super) fn rmdir(op: &PathRequest) -> Result<(), FileError> {
    let path = path(&op.path)?;
    rustix::fs::rmdir(&path[..]).map_err(failed(&path, "rmdir"))
}

/// Serves `remove`.
pub(super) fn remove(op: &PathRequest) -> Result<(), FileError> {
    let path = path(&op.path)?;
    rustix::fs::unlink(&path[..]).map_err(failed(&path, "remove"))
}

/// Serves `rename`.
pub(super) fn rename(op: &RenameEntry) -> Result<(), FileError> {
    let (from, to) = (path(&op.path)?, target(&op.to)?);
    let renamed = match op.replace {
        true => rustix::fs::rename(&from[..], &to[..]),
        false => rename_to_free(&from, &to),
    };
    let about = if renamed == Err(Errno::EXIST) { &to } else { &from };
    renamed.map_err(failed(about, "rename"))
}

/// Renames a file, unless the new name exists.
fn rename_to_free(from: &[u8], to: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system does not support the flag, or the rename itself is invalid.
        Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::lstat(to) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::rename(from, to),
            Err(error) => Err(error),
        },
        renamed => renamed,
    }
}

/// Serves `symlink`.
pub(super) fn symlink(op: &SymlinkFile) -> Result<(), FileError> {
    let (path, to) = (path(&op.path)?, target(&op.to)?);
    rustix::fs::symlink(&to[..], &path[..]).map_err(failed(&path, "symlink"))
}

/// Serves `link`.
pub(super) fn link(op: &LinkFile) -> Result<(), FileError> {
    let (path, to) = (path(&op.path)?, target(&op.to)?);
    rustix::fs::linkat(CWD, &path[..], CWD, &to[..], AtFlags::empty()).map_err(failed(&to, "link"))
}
