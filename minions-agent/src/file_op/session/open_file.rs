//! Regular files: `open`, `read`, `write`, `fsync`.
//!
//! Opening a pipe waits for its other end, and opening a device may have an effect. So the type of an existing file is
//! checked first, on a descriptor that does not open the file itself (`O_PATH`). Then the file is opened without
//! waiting (`O_NONBLOCK`).

use super::super::failure::{FileError, failed};
use super::super::metadata::kind;
use super::MODE_BITS;
use super::handle_table::{HandleKind, HandleTable, OpenHandle};
use bytes::Bytes;
use minions_proto::file_session::{MAX_DATA_LEN, OpenFile, ReadAt, WriteAt};
use minions_proto::file_stream::FileKind;
use minions_tree::walk::itself;
use minions_tree::walk::open_as_path;
use rustix::fs::{FileType, Mode, OFlags, fstat, open as open_path};
use rustix::io::Errno;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Mode of a new file if the request has none; the umask of the process (022) removes the write permissions of group
/// and others.
const DEFAULT_MODE: u32 = 0o666;

/// Serves `open`.
pub(super) fn open(op: &OpenFile) -> Result<OpenHandle, FileError> {
    let path = super::path(&op.path)?;
    let mode = checked_mode(op, &path)?;
    let file = match open_as_path(&path, true) {
        Ok(_) if op.create && op.exclusive => Err(Errno::EXIST).map_err(failed(&path, "open"))?,
        // The kernel protects files of other users in a directory that all users may write to (`fs.protected_regular`),
        // but only if the path is opened with `O_CREAT`. So a request with `create` opens the path, not the file that
        // was checked.
        Ok(existing) => {
            check_regular(&existing, &path)?;
            match op.create {
                true => opened(&path[..], op, mode),
                false => opened(itself(&existing), op, mode),
            }
        }
        Err(missing) if missing.is_missing() && op.create => opened(&path[..], op, mode),
        Err(error) => return Err(error),
    };
    let file = file.map_err(failed(&path, "open"))?;
    // Another process may have replaced the file since the check.
    check_regular(&file, &path)?;
    Ok(OpenHandle { path, kind: HandleKind::File(file.into()) })
}

fn opened(path: impl rustix::path::Arg, op: &OpenFile, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let access = match (op.read, op.write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    let mut flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    for (wanted, flag) in [
        (op.create, OFlags::CREATE),
        (op.exclusive, OFlags::EXCL),
        (op.truncate, OFlags::TRUNC),
        (op.append, OFlags::APPEND),
    ] {
        flags.set(flag, wanted);
    }
    open_path(path, flags, mode)
}

fn checked_mode(op: &OpenFile, path: &[u8]) -> Result<Mode, FileError> {
    let mode = op.mode.unwrap_or(DEFAULT_MODE);
    let reason = match op {
        _ if mode > MODE_BITS => "`mode` must be at most 4095 (0o7777)",
        OpenFile { read: false, write: false, .. } => "`read` or `write` must be true",
        OpenFile { exclusive: true, create: false, .. } => "`exclusive` requires `create`",
        OpenFile { truncate: true, write: false, .. } => "`truncate` requires `write`",
        OpenFile { append: true, write: false, .. } => "`append` requires `write`",
        _ => return Ok(Mode::from_raw_mode(mode)),
    };
    Err(FileError::refusal(Errno::INVAL, path, "open", reason))
}

/// Checks that a file is regular.
pub(super) fn check_regular(file: &impl AsFd, path: &[u8]) -> Result<(), FileError> {
    let stat = fstat(file).map_err(failed(path, "stat"))?;
    let (errno, name) = match kind(FileType::from_raw_mode(stat.st_mode)) {
        FileKind::File => return Ok(()),
        FileKind::Directory => (Errno::ISDIR, "directory"),
        FileKind::Fifo => (Errno::INVAL, "named pipe"),
        FileKind::Socket => (Errno::INVAL, "socket"),
        FileKind::CharDevice | FileKind::BlockDevice => (Errno::INVAL, "device"),
        FileKind::Symlink | FileKind::Other => (Errno::INVAL, "file of another type"),
    };
    let reason = format!("only regular files have contents; this is a {name}");
    Err(FileError::refusal(errno, path, "open", &reason))
}

/// Serves `read`. Returns fewer bytes only at the end of the file.
pub(super) fn read(handles: &HandleTable, op: ReadAt) -> Result<Bytes, FileError> {
    let (file, path) = handles.file(op.handle, "read")?;
    let most = usize::try_from(op.length).unwrap_or(usize::MAX);
    if most == 0 || most > MAX_DATA_LEN {
        let reason = format!("`length` is {most}: must be 1 to {MAX_DATA_LEN}");
        return Err(FileError::refusal(Errno::INVAL, path, "read", &reason));
    }
    check_offset(op.offset, most, path, "read")?;
    let mut data = vec![0; most];
    let mut len = 0;
    while len < most {
        match file.read_at(&mut data[len..], op.offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The next request, which begins at this byte, reports the error.
            Err(_) if len > 0 => break,
            Err(error) => return Err(FileError::new(&error, path, "read")),
        }
    }
    data.truncate(len);
    Ok(data.into())
}

/// Serves `write`.
pub(super) fn write(handles: &HandleTable, op: WriteAt, data: &[u8]) -> Result<(), FileError> {
    let (file, path) = handles.file(op.handle, "write")?;
    check_offset(op.offset, data.len(), path, "write")?;
    file.write_all_at(data, op.offset).map_err(|error| FileError::new(&error, path, "write"))
}

/// Checks that an access ends within the largest possible file: the kernel's offsets are signed.
fn check_offset(offset: u64, len: usize, path: &[u8], step: &'static str) -> Result<(), FileError> {
    let most = i64::MAX.unsigned_abs();
    if offset.checked_add(len as u64).is_some_and(|end| end <= most) {
        return Ok(());
    }
    let reason = format!("`offset` is {offset}: the end of the access must be at most {most}");
    Err(FileError::refusal(Errno::INVAL, path, step, &reason))
}

/// Serves `fsync`.
pub(super) fn sync(handles: &HandleTable, number: u32) -> Result<(), FileError> {
    let handle = handles.get(number, "fsync")?;
    rustix::fs::fsync(handle.descriptor()).map_err(failed(&handle.path, "fsync"))
}

/// Opens an existing regular file for a change of its size.
pub(super) fn open_to_resize(file: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(open_path(itself(file), flags, Mode::empty())?.into())
}
