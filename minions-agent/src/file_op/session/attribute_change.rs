//! Changes of attributes: `setstat`, `fsetstat`.
//!
//! All values are checked before the first change. If one change fails, the others are still made, as in OpenSSH's
//! server, and the first failure is reported: a user who is not root cannot keep the owner, but the mode and the times.
//! The size comes first, because it is the most likely to fail, and a
//! change of it sets the modification time; the owner comes before the mode, because a change of the owner clears
//! set-user-id and set-group-id.

use super::super::failure::{FileError, failed};
use super::handle_table::HandleTable;
use super::open_file::{check_regular, open_to_resize};
use super::{MODE_BITS, NANOS};
use minions_proto::file_session::{AttributeChange, SetAttributes, SetHandleAttributes};
use minions_tree::walk::itself;
use minions_tree::walk::open_as_path;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod,
    fchown, fstat, ftruncate, futimens, utimensat,
};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// Id that means "unchanged" in chown(2), so no file can have it.
const NO_ID: u32 = u32::MAX;

/// Serves `setstat`.
pub(super) fn of_path(op: &SetAttributes) -> Result<(), FileError> {
    let path = super::path(&op.path)?;
    check(&op.change, &path)?;
    let file = open_as_path(&path, op.follow)?;
    let is_link = {
        let stat = fstat(&file).map_err(failed(&path, "stat"))?;
        FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
    };
    // The path of the descriptor leads to this file, even if another one has its name by now.
    let name = itself(&file);
    let size = op.change.size.map_or(Ok(()), |size| resize(&file, &path, size));
    let owner = owner(&op.change).map_or(Ok(()), |(uid, gid)| {
        chownat(CWD, &*name, uid, gid, AtFlags::empty()).map_err(failed(&path, "chown"))
    });
    let mode = op.change.mode.map_or(Ok(()), |mode| {
        if is_link {
            let reason = "a symbolic link has no permission bits";
            return Err(FileError::refusal(Errno::OPNOTSUPP, &path, "chmod", reason));
        }
        rustix::fs::chmod(&*name, Mode::from_raw_mode(mode)).map_err(failed(&path, "chmod"))
    });
    let times = times(&op.change).map_or(Ok(()), |times| {
        utimensat(CWD, &*name, &times, AtFlags::empty()).map_err(failed(&path, "utimes"))
    });
    size.and(owner).and(mode).and(times)
}

fn resize(file: &OwnedFd, path: &[u8], size: u64) -> Result<(), FileError> {
    check_regular(file, path)?;
    let file = open_to_resize(file).map_err(failed(path, "truncate"))?;
    ftruncate(&file, size).map_err(failed(path, "truncate"))
}

/// Serves `fsetstat`.
pub(super) fn of_handle(handles: &HandleTable, op: SetHandleAttributes) -> Result<(), FileError> {
    let handle = handles.get(op.handle, "setstat")?;
    let (file, path) = (handle.descriptor(), &handle.path);
    check(&op.change, path)?;
    let size = op
        .change
        .size
        .map_or(Ok(()), |size| ftruncate(file, size).map_err(failed(path, "truncate")));
    let owner = owner(&op.change)
        .map_or(Ok(()), |(uid, gid)| fchown(file, uid, gid).map_err(failed(path, "chown")));
    let mode = op.change.mode.map_or(Ok(()), |mode| {
        fchmod(file, Mode::from_raw_mode(mode)).map_err(failed(path, "chmod"))
    });
    let times = times(&op.change)
        .map_or(Ok(()), |times| futimens(file, &times).map_err(failed(path, "utimes")));
    size.and(owner).and(mode).and(times)
}

fn check(change: &AttributeChange, path: &[u8]) -> Result<(), FileError> {
    let reason = match change {
        AttributeChange { mode: Some(mode), .. } if *mode > MODE_BITS => {
            "`mode` must be at most 4095 (0o7777)"
        }
        AttributeChange { size: Some(size), .. } if i64::try_from(*size).is_err() => {
            "`size` must be at most 9223372036854775807"
        }
        AttributeChange { uid: Some(NO_ID), .. } => "`uid` must be at most 4294967294",
        AttributeChange { gid: Some(NO_ID), .. } => "`gid` must be at most 4294967294",
        _ => return Ok(()),
    };
    Err(FileError::refusal(Errno::INVAL, path, "setstat", reason))
}

/// Returns the new owner and group; `None` if both are kept.
fn owner(change: &AttributeChange) -> Option<(Option<Uid>, Option<Gid>)> {
    let owner = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
    (owner != (None, None)).then_some(owner)
}

/// Returns the new times; `None` if both are kept.
fn times(change: &AttributeChange) -> Option<Timestamps> {
    let time = |nanoseconds: Option<i64>| match nanoseconds {
        Some(nanoseconds) => Timespec {
            tv_sec: nanoseconds.div_euclid(NANOS),
            tv_nsec: nanoseconds.rem_euclid(NANOS),
        },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    (change.atime_ns, change.mtime_ns).ne(&(None, None)).then(|| Timestamps {
        last_access: time(change.atime_ns),
        last_modification: time(change.mtime_ns),
    })
}
