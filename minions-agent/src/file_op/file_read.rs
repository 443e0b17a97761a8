//! Operation `read`.

use super::failure::{FileError, failed};
use super::metadata;
use super::operation_output::OperationOutput;
use minions_proto::file_stream::{FileHeader, FileKind};
use minions_proto::message::ReadFile;
use minions_tree::content::send_content;
use minions_tree::walk::{open_as_path, reopen};
use rustix::fs::{FileType, Stat, fstat, fstatfs};
use rustix::io::Errno;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;

/// Magic numbers (linux/magic.h) of the file systems whose files are generated when they are read, so their size is
/// unknown: those of `/proc` and `/sys`, control groups, and file systems for debugging.
const GENERATED: [i64; 8] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
];

/// Serves `read`.
pub(super) fn read(op: &ReadFile, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let itself = open_as_path(&path, true)?;
    let stat = fstat(&itself).map_err(failed(&path, "stat"))?;
    check_regular(&stat, &path)?;
    let mut file = reopen(&itself).map_err(failed(&path, "open"))?;
    let metadata = metadata::of_stat(&stat);
    let is_whole = op.if_range.as_ref().is_some_and(|etag| *etag != metadata.etag);
    let (offset, most) = if is_whole { (0, None) } else { (op.offset, op.length) };
    let length = match is_generated(&itself) {
        true => None,
        false => Some(metadata.size.saturating_sub(offset).min(most.unwrap_or(u64::MAX))),
    };
    file.seek(SeekFrom::Start(offset)).map_err(failed(&path, "seek"))?;
    output.header(&FileHeader { offset: Some(offset), length, ..metadata.into() })?;
    let left = length.or(most).unwrap_or(u64::MAX);
    let sent =
        send_content(&mut file, left, output).map_err(|error| FileError::not_sent(&error))?;
    if let Some(error) = sent.error {
        return Err(FileError::new(&error, &path, "read"));
    }
    if length.is_some() && sent.missing > 0 {
        let reason = format!(
            "the file became shorter while it was read; {} bytes are missing",
            sent.missing
        );
        return Err(FileError::refusal(Errno::NODATA, &path, "read", &reason));
    }
    Ok(())
}

/// Checks that a file is regular. Opening a file of another type may have an effect, or wait forever.
fn check_regular(stat: &Stat, path: &[u8]) -> Result<(), FileError> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let (errno, name) = match metadata::kind(kind) {
        FileKind::File => return Ok(()),
        FileKind::Directory => (Errno::ISDIR, "directory; use `list` or `tar_out`"),
        FileKind::Fifo => (Errno::INVAL, "named pipe"),
        FileKind::Socket => (Errno::INVAL, "socket; connect to it with a forward"),
        FileKind::CharDevice | FileKind::BlockDevice => (Errno::INVAL, "device"),
        FileKind::Symlink | FileKind::Other => (Errno::INVAL, "file of another type"),
    };
    let reason = format!("only regular files can be read; this is a {name}");
    Err(FileError::refusal(errno, path, "open", &reason))
}

#[allow(clippy::useless_conversion, reason = "the type of `f_type` depends on the architecture")]
fn is_generated(file: &OwnedFd) -> bool {
    fstatfs(file).is_ok_and(|fs| GENERATED.contains(&i64::from(fs.f_type)))
}
