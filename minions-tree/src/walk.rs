//! Reading a tree: open directories and files, and the names in them.

use crate::error::{FileError, failed};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Depth of the deepest tree that is removed or packed: each level holds a descriptor.
pub const MAX_DEPTH: usize = 512;

/// Length of the buffer for the entries of one directory, in bytes. Each level of a tree has one.
pub const ENTRIES_LEN: usize = 8 * 1024;

/// Opens a file of any type only for its metadata (`O_PATH`), without an effect on the file.
///
/// # Errors
///
/// The kernel's.
pub fn open_as_path(path: &[u8], follow: bool) -> Result<OwnedFd, FileError> {
    let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::PATH | OFlags::CLOEXEC | nofollow;
    open(path, flags, Mode::empty()).map_err(failed(path, "open"))
}

/// Opens the directory `name`, which must not be a symbolic link.
///
/// # Errors
///
/// The kernel's.
pub fn open_directory(directory: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// Returns a path of an open file, for calls that take only paths.
pub fn itself(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// Opens the same file that was checked, for reading.
///
/// # Errors
///
/// The kernel's.
pub fn reopen(file: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(open(itself(file), flags, Mode::empty())?.into())
}

/// Reports whether a name is `.` or `..`.
#[must_use]
pub fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Returns the path of `name` in the directory `path`.
#[must_use]
pub fn beneath(path: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if path.last() == Some(&b'/') || path.is_empty() { b"" } else { b"/" };
    [path, slash, name].concat()
}

/// Returns the failure for a tree that is too deep.
#[must_use]
pub fn too_deep(path: &[u8], step: &'static str) -> FileError {
    let reason = format!("the tree is more than {MAX_DEPTH} directories deep");
    FileError::refusal(Errno::OVERFLOW, path, step, &reason)
}
