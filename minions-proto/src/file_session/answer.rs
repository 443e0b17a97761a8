//! Answers of a file session. Written by the guest.

use crate::file_stream::{FileFailure, FileKind};
use crate::message::{GuestPath, decoded_name, encoded_name};
use serde::{Deserialize, Serialize};

/// Head of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionAnswer {
    /// Number of the request.
    pub id: u64,
    /// Result of the request.
    #[serde(flatten)]
    pub result: SessionResult,
}

/// Result of a request, with its type in `result`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum SessionResult {
    /// The operation succeeded.
    Done,
    /// A file or directory is open.
    Handle {
        /// Number of the handle.
        handle: u32,
    },
    /// The data of the frame was read. Empty data is the end of the file.
    Data,
    /// Metadata of a file.
    Metadata(SessionMetadata),
    /// Entries of a directory, including `.` and `..`, in the order of the file system. An empty
    /// list is the end.
    Entries {
        /// Entries of this batch.
        entries: Vec<SessionEntry>,
    },
    /// A path: the target of a link, or a resolved path.
    Path(SessionPath),
    /// Size and free space of a file system.
    Space(FilesystemSpace),
    /// The operation failed.
    Failed(FileFailure),
}

/// Metadata of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionMetadata {
    /// Type of the file.
    #[serde(rename = "type")]
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the owning group.
    pub gid: u32,
    /// Number of hard links.
    pub nlink: u64,
    /// Time of the last access, in nanoseconds since 1970 (UTC).
    pub atime_ns: i64,
    /// Time of the last change of the contents, in nanoseconds since 1970 (UTC).
    pub mtime_ns: i64,
}

/// Entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Name in the directory.
    pub name: String,
    /// Bytes of the name, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_base64: Option<String>,
    /// Metadata of the entry; a symbolic link is not followed. Absent: the user may not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<SessionMetadata>,
}

/// Path in an answer: the fields `path` and `path_base64`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPath {
    /// Bytes of the path.
    #[serde(flatten)]
    pub path: GuestPath,
}

/// Size and free space of a file system, as of statvfs(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FilesystemSpace {
    /// Preferred size of a transfer, in bytes.
    pub block_size: u64,
    /// Unit of the numbers of blocks, in bytes.
    pub fragment_size: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Number of free blocks.
    pub blocks_free: u64,
    /// Number of free blocks for users other than root.
    pub blocks_available: u64,
    /// Number of files, in use or free.
    pub files: u64,
    /// Number of files that can still be created.
    pub files_free: u64,
    /// Number of files that users other than root can still create.
    pub files_available: u64,
    /// Id of the file system.
    pub filesystem_id: u64,
    /// True if the file system is mounted read-only.
    pub read_only: bool,
    /// True if set-user-id and set-group-id have no effect.
    pub no_set_id: bool,
    /// Longest name, in bytes.
    pub name_max: u64,
}

impl SessionEntry {
    /// Creates the entry of this name.
    #[must_use]
    pub fn new(name: &[u8], metadata: Option<SessionMetadata>) -> Self {
        let (name, name_base64) = encoded_name(name);
        Self { name, name_base64, metadata }
    }

    /// Returns the bytes of the name, or `None` if the guest sent invalid base64.
    #[must_use]
    pub fn name_bytes(&self) -> Option<Vec<u8>> {
        decoded_name(&self.name, self.name_base64.as_deref())
    }
}

impl SessionPath {
    /// Returns the bytes of the path, or `None` if the guest sent invalid base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        decoded_name(&self.path.path, self.path.path_base64.as_deref())
    }
}
