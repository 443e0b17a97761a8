//! Operation `write`.

use super::failure::{FileError, failed, unresolved};
use super::file_input::FileInput;
use super::metadata;
use super::operation_output::OperationOutput;
use crate::exec::find_account;
use minions_proto::message::WriteStream;
use minions_tree::BUFFER_LEN;
use minions_tree::files::{FileAttributes, FileLocation, MODE_BITS, NameConflict, is_regular};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Mode of a new file if the request has none.
const DEFAULT_MODE: u32 = 0o644;

/// Serves `write`.
pub(super) fn write(op: &WriteStream, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let location = locate(&path, op.parents)?;
    let present = location.present().map_err(failed(&path, "stat"))?;
    check(op, &path, present.as_ref())?;
    let attributes = attributes(op, &path, &location, present.as_ref())?;
    let mut new = location.begin_file().map_err(failed(&path, "create"))?;
    receive(new.file(), &path)?;
    new.complete(attributes).map_err(failed(&path, "complete"))?;
    // Another file may have this name by now. Only microseconds remain between this check and the rename.
    if op.if_match.is_some() {
        check(op, &path, location.present().map_err(failed(&path, "stat"))?.as_ref())?;
    }
    let conflict = if op.create_only { NameConflict::Fail } else { NameConflict::Replace };
    new.publish(conflict).map_err(failed(&path, "rename"))?;
    location.sync_directory().map_err(failed(&path, "sync"))?;
    let present = location.present().map_err(failed(&path, "stat"))?;
    let written = present.ok_or(Errno::NOENT).map_err(failed(&path, "stat"))?;
    output.header(&metadata::of_stat(&written).into())
}

/// Resolves a path that ends with a name.
pub(super) fn locate(path: &[u8], parents: bool) -> Result<FileLocation, FileError> {
    let name = Path::new(OsStr::from_bytes(path));
    let location = if parents { FileLocation::make(name) } else { FileLocation::find(name) };
    location.map_err(unresolved(path))
}

/// Checks that the present file may be replaced.
fn check(op: &WriteStream, path: &[u8], present: Option<&Stat>) -> Result<(), FileError> {
    let refusal = |errno, step, reason: &str| Err(FileError::refusal(errno, path, step, reason));
    match present.map(|file| FileType::from_raw_mode(file.st_mode)) {
        Some(FileType::Directory) => return refusal(Errno::ISDIR, "create", "is a directory"),
        Some(_) if op.create_only => {
            return refusal(Errno::EXIST, "create", "exists, and `create_only` is set");
        }
        None | Some(FileType::RegularFile | FileType::Symlink) => {}
        Some(_) => return refusal(Errno::INVAL, "create", "is not a regular file"),
    }
    match (&op.if_match, present) {
        (Some(_), None) => refusal(Errno::STALE, "if_match", "the file does not exist"),
        (Some(etag), Some(file)) if *etag != metadata::etag(file) => {
            refusal(Errno::STALE, "if_match", "the file was changed: its etag differs")
        }
        _ => Ok(()),
    }
}

/// Returns the attributes of the new file: by default, the owner and the mode of the regular file that it replaces,
/// unless another user may have determined them.
fn attributes(
    op: &WriteStream,
    path: &[u8],
    location: &FileLocation,
    present: Option<&Stat>,
) -> Result<FileAttributes, FileError> {
    let trusted = present.filter(|file| is_regular(file) && location.trusts(file));
    let mode = op.mode.or(trusted.map(|file| file.st_mode & MODE_BITS)).unwrap_or(DEFAULT_MODE);
    let owner = match &op.owner {
        Some(owner) => Some(find_account(owner).map_err(|error| {
            FileError::refusal(Errno::INVAL, path, "owner", &error.to_string())
        })?),
        None => trusted.map(|file| (file.st_uid, file.st_gid)),
    };
    Ok(FileAttributes { mode, owner })
}

/// Writes the whole input to a file.
fn receive(file: &mut File, path: &[u8]) -> Result<(), FileError> {
    let mut input = FileInput::standard();
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        match input.read(&mut buffer).map_err(failed(path, "input"))? {
            0 => return Ok(()),
            len => file.write_all(&buffer[..len]).map_err(failed(path, "write"))?,
        }
    }
}
