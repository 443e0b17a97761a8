//! Metadata of files, and the operation `stat`.

use super::failure::{FileError, failed};
use super::operation_output::OperationOutput;
use minions_proto::file_stream::{FileKind, FileMetadata};
use minions_proto::message::{GuestPath, StatFile};
use minions_tree::files::MODE_BITS;
use minions_tree::walk::open_as_path;
use rustix::fs::{FileType, Stat, fstat, readlinkat};
use std::os::fd::{AsFd, OwnedFd};

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// Serves `stat`.
pub(super) fn stat(op: &StatFile, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let file = open_as_path(&path, op.follow)?;
    let metadata = of_file(&file).map_err(failed(&path, "stat"))?;
    output.header(&metadata.into())
}

/// Returns the metadata of an open file, with the target of a symbolic link.
pub(super) fn of_file(file: &OwnedFd) -> rustix::io::Result<FileMetadata> {
    let mut metadata = of_stat(&fstat(file)?);
    if metadata.kind == FileKind::Symlink {
        add_target(&mut metadata, file, b"")?;
    }
    Ok(metadata)
}

/// Adds the target of the symbolic link `name` in `directory`; with an empty name, of `directory` itself.
pub(super) fn add_target(
    metadata: &mut FileMetadata,
    directory: &impl AsFd,
    name: &[u8],
) -> rustix::io::Result<()> {
    let target = readlinkat(directory, name, Vec::new())?;
    let GuestPath { path, path_base64 } = GuestPath::new(target.as_bytes());
    (metadata.target, metadata.target_base64) = (Some(path), path_base64);
    Ok(())
}

/// Converts the kernel's metadata.
#[allow(clippy::useless_conversion, reason = "the type of `st_nlink` depends on the architecture")]
pub(super) fn of_stat(stat: &Stat) -> FileMetadata {
    FileMetadata {
        kind: kind(FileType::from_raw_mode(stat.st_mode)),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & MODE_BITS,
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: stat.st_nlink.into(),
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        etag: etag(stat),
        target: None,
        target_base64: None,
    }
}

/// Converts the type of a file.
pub(super) fn kind(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => FileKind::Other,
    }
}

/// Returns a strong validator (RFC 9110, section 8.8.1). It includes the time of the last status change, which a
/// program cannot set, unlike the modification time.
pub(super) fn etag(stat: &Stat) -> String {
    let mtime = nanoseconds(stat.st_mtime, stat.st_mtime_nsec);
    let ctime = nanoseconds(stat.st_ctime, stat.st_ctime_nsec);
    format!("{:x}-{:x}-{:x}-{mtime:x}-{ctime:x}", stat.st_dev, stat.st_ino, stat.st_size)
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(0);
    seconds.saturating_mul(NANOS).saturating_add(nanoseconds)
}
