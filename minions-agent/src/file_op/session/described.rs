//! Descriptions of files: `stat`, `statvfs`, `readlink`, `realpath`.

use super::super::failure::{FileError, failed};
use super::super::metadata::kind;
use super::handle_table::HandleTable;
use super::{MODE_BITS, NANOS};
use minions_proto::file_session::{FilesystemSpace, PathRequest, SessionMetadata, StatPath};
use minions_tree::walk::open_as_path;
use rustix::fs::{FileType, Stat, StatVfs, StatVfsMountFlags, fstat, fstatvfs, readlink, statvfs};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Serves `stat`.
pub(super) fn of_path(op: &StatPath) -> Result<SessionMetadata, FileError> {
    let path = super::path(&op.path)?;
    let file = open_as_path(&path, op.follow)?;
    Ok(of_stat(&fstat(&file).map_err(failed(&path, "stat"))?))
}

/// Serves `fstat`.
pub(super) fn of_handle(handles: &HandleTable, number: u32) -> Result<SessionMetadata, FileError> {
    let handle = handles.get(number, "stat")?;
    Ok(of_stat(&fstat(handle.descriptor()).map_err(failed(&handle.path, "stat"))?))
}

/// Converts the kernel's metadata.
#[allow(clippy::useless_conversion, reason = "the type of `st_nlink` depends on the architecture")]
pub(super) fn of_stat(stat: &Stat) -> SessionMetadata {
    SessionMetadata {
        kind: kind(FileType::from_raw_mode(stat.st_mode)),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & MODE_BITS,
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: stat.st_nlink.into(),
        atime_ns: nanoseconds(stat.st_atime, stat.st_atime_nsec),
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(0);
    seconds.saturating_mul(NANOS).saturating_add(nanoseconds)
}

/// Serves `statvfs`.
pub(super) fn space_of_path(op: &PathRequest) -> Result<FilesystemSpace, FileError> {
    let path = super::path(&op.path)?;
    Ok(space(&statvfs(&path[..]).map_err(failed(&path, "statvfs"))?))
}

/// Serves `fstatvfs`.
pub(super) fn space_of_handle(
    handles: &HandleTable,
    number: u32,
) -> Result<FilesystemSpace, FileError> {
    let handle = handles.get(number, "statvfs")?;
    Ok(space(&fstatvfs(handle.descriptor()).map_err(failed(&handle.path, "statvfs"))?))
}

fn space(stat: &StatVfs) -> FilesystemSpace {
    FilesystemSpace {
        block_size: stat.f_bsize,
        fragment_size: stat.f_frsize,
        blocks: stat.f_blocks,
        blocks_free: stat.f_bfree,
        blocks_available: stat.f_bavail,
        files: stat.f_files,
        files_free: stat.f_ffree,
        files_available: stat.f_favail,
        filesystem_id: stat.f_fsid,
        read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        no_set_id: stat.f_flag.contains(StatVfsMountFlags::NOSUID),
        name_max: stat.f_namemax,
    }
}

/// Serves `readlink`.
pub(super) fn target(op: &PathRequest) -> Result<Vec<u8>, FileError> {
    let path = super::path(&op.path)?;
    let target = readlink(&path[..], Vec::new()).map_err(failed(&path, "readlink"))?;
    Ok(target.into_bytes())
}

/// Serves `realpath`.
pub(super) fn resolved(op: &PathRequest) -> Result<Vec<u8>, FileError> {
    let path = super::path(&op.path)?;
    let resolved = resolve(Path::new(OsStr::from_bytes(&path)));
    let resolved = resolved.map_err(|error| FileError::new(&error, &path, "realpath"))?;
    Ok(resolved.into_os_string().into_vec())
}

/// Resolves a path. The last component may be missing, as a client may resolve a name before it creates the file.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let missing = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        resolved => return resolved,
    };
    // `..` and an empty path have no name.
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(missing);
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    Ok(directory.canonicalize()?.join(name))
}
