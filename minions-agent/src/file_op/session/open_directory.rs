//! Directories: `opendir`, `readdir`.

use super::super::failure::{FileError, failed};
use super::described;
use super::handle_table::{HandleKind, HandleTable, OpenHandle};
use minions_proto::file_session::{MAX_HEAD_LEN, OpenDirectory, SessionEntry};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, statat};
use rustix::io::Errno;

/// Largest number of entries in one answer.
const MAX_ENTRIES: usize = 128;

/// Length of the entries of an answer, in bytes of JSON, after which no further entry is added. The longest entry, a
/// name of 255 bytes that are all escaped, has about 2 KiB, so the head stays within its limit.
const ENOUGH: usize = MAX_HEAD_LEN * 3 / 4;

/// Serves `opendir`.
pub(super) fn open(op: &OpenDirectory) -> Result<OpenHandle, FileError> {
    let path = super::path(&op.path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(&path[..], flags, Mode::empty()).map_err(failed(&path, "opendir"))?;
    let entries = Dir::read_from(&directory).map_err(failed(&path, "opendir"))?;
    Ok(OpenHandle { path, kind: HandleKind::Directory(directory.into(), entries) })
}

/// Serves `readdir`.
pub(super) fn read(handles: &mut HandleTable, number: u32) -> Result<Vec<SessionEntry>, FileError> {
    let (directory, names, path) = handles.directory(number, "readdir")?;
    let mut entries = Vec::new();
    let mut len = 0;
    while entries.len() < MAX_ENTRIES && len < ENOUGH {
        let Some(entry) = names.read() else { break };
        let entry = entry.map_err(failed(path, "readdir"))?;
        let metadata = match statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(described::of_stat(&stat)),
            // The entry was removed since the kernel listed it.
            Err(Errno::NOENT) => continue,
            Err(_) => None,
        };
        let entry = SessionEntry::new(entry.file_name().to_bytes(), metadata);
        len += minions_proto::json::to_vec(&entry).map_or(0, |json| json.len());
        entries.push(entry);
    }
    Ok(entries)
}
