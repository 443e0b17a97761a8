//! Requests of a file session.

use crate::json;
use crate::message::{GuestPath, GuestTarget};
use serde::{Deserialize, Serialize};

/// Head of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionRequest {
    /// Number that the host has chosen; the answer repeats it.
    pub id: u64,
    /// Operation.
    #[serde(flatten)]
    pub operation: SessionOperation,
}

/// Operation of a file session, with its name in `op`. Paths may be relative: to the user's home
/// directory, or to `/` if it does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum SessionOperation {
    /// Opens a regular file. Answer: `handle`.
    Open(OpenFile),
    /// Closes a handle. Answer: `done`.
    Close(SessionHandle),
    /// Reads from an offset. Answer: `data`, which is empty only at the end of the file.
    Read(ReadAt),
    /// Writes the data of the frame at an offset. Answer: `done`.
    Write(WriteAt),
    /// Describes a file of any type. Answer: `metadata`.
    Stat(StatPath),
    /// Describes an open file or directory. Answer: `metadata`.
    Fstat(SessionHandle),
    /// Changes attributes of a file. Answer: `done`.
    Setstat(SetAttributes),
    /// Changes attributes of an open file or directory. Answer: `done`.
    Fsetstat(SetHandleAttributes),
    /// Opens a directory. Answer: `handle`.
    Opendir(OpenDirectory),
    /// Returns further entries of a directory. Answer: `entries`; an empty list is the end.
    Readdir(SessionHandle),
    /// Creates a directory. Answer: `done`.
    Mkdir(MakeSessionDirectory),
    /// Removes an empty directory. Answer: `done`.
    Rmdir(PathRequest),
    /// Removes a file that is not a directory. Answer: `done`.
    Remove(PathRequest),
    /// Renames a file. Answer: `done`.
    Rename(RenameEntry),
    /// Creates a symbolic link. Answer: `done`.
    Symlink(SymlinkFile),
    /// Creates a hard link. Answer: `done`.
    Link(LinkFile),
    /// Reads a symbolic link. Answer: `path`.
    Readlink(PathRequest),
    /// Resolves a path; its last component may be missing. Answer: `path`, which is absolute.
    Realpath(PathRequest),
    /// Writes an open file to disk. Answer: `done`.
    Fsync(SessionHandle),
    /// Describes the file system of a path. Answer: `space`.
    Statvfs(PathRequest),
    /// Describes the file system of an open file or directory. Answer: `space`.
    Fstatvfs(SessionHandle),
    /// An operation that was added after this version. Answer: `failed` with `ENOSYS`.
    #[serde(other)]
    Unknown,
}

/// Handle of an open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionHandle {
    /// Number in the answer to `open` or `opendir`.
    pub handle: u32,
}

/// Path of an operation without further members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathRequest {
    /// File that the operation is about.
    #[serde(flatten)]
    pub path: GuestPath,
}

/// Members of `open`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OpenFile {
    /// File to open. Symbolic links are followed.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to permit `read`.
    #[serde(default)]
    pub read: bool,
    /// True to permit `write`.
    #[serde(default)]
    pub write: bool,
    /// True to create the file if it is missing.
    #[serde(default)]
    pub create: bool,
    /// True to fail if the file exists. Requires `create`.
    #[serde(default)]
    pub exclusive: bool,
    /// True to empty the file. Requires `write`.
    #[serde(default)]
    pub truncate: bool,
    /// True to write at the end of the file, regardless of the offset in the request.
    #[serde(default)]
    pub append: bool,
    /// Permission bits of a new file, without those of the umask 022. Absent: `0666`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Members of `opendir`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OpenDirectory {
    /// Directory to list.
    #[serde(flatten)]
    pub path: GuestPath,
}

/// Members of `read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAt {
    /// Handle of an open file.
    pub handle: u32,
    /// Offset of the first byte.
    pub offset: u64,
    /// Largest number of bytes, 1 to [`MAX_DATA_LEN`](super::MAX_DATA_LEN).
    pub length: u32,
}

/// Members of `write`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteAt {
    /// Handle of an open file.
    pub handle: u32,
    /// Offset of the first byte.
    pub offset: u64,
}

/// Members of `stat`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatPath {
    /// File to describe.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to describe the target of a symbolic link instead of the link.
    #[serde(default)]
    pub follow: bool,
}

/// Attributes to change. Absent ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttributeChange {
    /// Size of a regular file, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Permission bits, at most `0o7777`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Number of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Number of the owning group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Time of the last access, in nanoseconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atime_ns: Option<i64>,
    /// Time of the last change of the contents, in nanoseconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
}

/// Members of `setstat`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetAttributes {
    /// File to change.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to change the target of a symbolic link instead of the link.
    #[serde(default)]
    pub follow: bool,
    /// Attributes to change.
    #[serde(flatten)]
    pub change: AttributeChange,
}

/// Members of `fsetstat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetHandleAttributes {
    /// Handle of an open file or directory.
    pub handle: u32,
    /// Attributes to change.
    #[serde(flatten)]
    pub change: AttributeChange,
}

/// Members of `mkdir`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MakeSessionDirectory {
    /// Directory to create.
    #[serde(flatten)]
    pub path: GuestPath,
    /// Permission bits, without those of the umask 022. Absent: `0777`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Members of `rename`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RenameEntry {
    /// Present name.
    #[serde(flatten)]
    pub path: GuestPath,
    /// New name, in the same file system.
    #[serde(flatten)]
    pub to: GuestTarget,
    /// True to replace a file with the new name. Otherwise the operation fails with `EEXIST`.
    #[serde(default)]
    pub replace: bool,
}

/// Members of `symlink`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SymlinkFile {
    /// Name of the new link.
    #[serde(flatten)]
    pub path: GuestPath,
    /// Target, which need not exist.
    #[serde(flatten)]
    pub to: GuestTarget,
}

/// Members of `link`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkFile {
    /// Existing file. A symbolic link is not followed.
    #[serde(flatten)]
    pub path: GuestPath,
    /// Further name.
    #[serde(flatten)]
    pub to: GuestTarget,
}

#[derive(Deserialize)]
struct RequestNumber {
    id: u64,
}

impl SessionRequest {
    /// Decodes a head. The number is returned even if the operation is malformed, so that the
    /// request can be answered.
    ///
    /// # Errors
    ///
    /// The head is not an object with a number `id`; the inner error: the operation is malformed.
    pub fn decode(
        head: &[u8],
    ) -> Result<(u64, Result<SessionOperation, serde_json::Error>), serde_json::Error> {
        let RequestNumber { id } = json::from_slice(head)?;
        Ok((id, json::from_slice(head)))
    }
}
