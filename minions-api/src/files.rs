//! Files of guests.

use minions_proto::file_stream as wire;
use serde::{Deserialize, Serialize};

/// Type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// A type that this version does not know.
    #[serde(other)]
    Other,
}

/// Metadata of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileInfo {
    /// Type of the file.
    #[serde(rename = "type")]
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, as a decimal number: 420 is 0644.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the owning group.
    pub gid: u32,
    /// Number of hard links.
    pub nlink: u64,
    /// Time of the last change of the contents, in nanoseconds since 1970 (UTC).
    pub mtime_ns: i64,
    /// Strong validator, as in the header `ETag`, without its quotes.
    pub etag: String,
    /// Target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Bytes of the target as base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_base64: Option<String>,
}

/// Entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileEntry {
    /// Name in the directory.
    pub name: String,
    /// Bytes of the name as base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_base64: Option<String>,
    /// Metadata; a symbolic link is not followed.
    #[serde(flatten)]
    pub file: FileInfo,
}

/// Failure of one file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileFailure {
    /// Name of the kernel's error number: `EACCES`.
    pub errno: String,
    /// Path of the file.
    pub path: String,
    /// Bytes of the path as base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// Step that failed: `open`, `read`.
    pub step: String,
    /// Description for people.
    pub message: String,
}

/// Reply to a written file or tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileWritten {
    /// `ok`
    pub status: String,
    /// Metadata of the file, or of the directory of a tree.
    pub file: FileInfo,
    /// Number of members that were created, for a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Number of members that were left out, for a tree.
    pub left_out: u64,
    /// Reasons for members that were left out; at most 100.
    pub failures: Vec<FileFailure>,
}

/// Reply to a removed file or tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileRemoved {
    /// `ok`
    pub status: String,
    /// Metadata of the removed file.
    pub file: FileInfo,
    /// Number of removed files, with those beneath a directory.
    pub count: u64,
}

/// Request to create a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MakeDirectoryRequest {
    /// Absolute path in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Path as base64, if it is not UTF-8; instead of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number; default root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Create missing parent directories, and accept a directory that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<bool>,
    /// Permission bits in octal; default 755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// Request to rename a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MoveFileRequest {
    /// Absolute path in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Path as base64, if it is not UTF-8; instead of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// New absolute path, in the same file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// New path as base64, if it is not UTF-8; instead of `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number; default root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Fail if the new name exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_replace: Option<bool>,
}

/// Type of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileChangeKind {
    /// A name appeared.
    Created,
    /// The contents or the metadata changed.
    Modified,
    /// A name disappeared.
    Removed,
    /// A file was renamed, from `path` to `to`.
    Moved,
    /// Changes were lost: list the directories again.
    Overflow,
    /// A change that this version does not know.
    #[serde(other)]
    Other,
}

impl FileChangeKind {
    /// Returns the name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Removed => "removed",
            Self::Moved => "moved",
            Self::Overflow => "overflow",
            Self::Other => "other",
        }
    }
}

/// Change of a watched file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileChange {
    /// Type of the change.
    pub event: FileChangeKind,
    /// Path of the file; empty for `overflow`.
    pub path: String,
    /// Bytes of the path as base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// New path of a renamed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Bytes of the new path as base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_base64: Option<String>,
    /// True if the file is a directory.
    pub directory: bool,
}

impl From<wire::FileKind> for FileKind {
    fn from(kind: wire::FileKind) -> Self {
        match kind {
            wire::FileKind::File => Self::File,
            wire::FileKind::Directory => Self::Directory,
            wire::FileKind::Symlink => Self::Symlink,
            wire::FileKind::Fifo => Self::Fifo,
            wire::FileKind::Socket => Self::Socket,
            wire::FileKind::CharDevice => Self::CharDevice,
            wire::FileKind::BlockDevice => Self::BlockDevice,
            wire::FileKind::Other => Self::Other,
        }
    }
}
