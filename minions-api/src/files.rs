//! Files of guests. The metadata, entries and changes are those of the agent.

pub use minions_proto::file_stream::{
    DirectoryEntry, FileEvent, FileEventKind, FileFailure, FileKind, FileMetadata,
};
use serde::{Deserialize, Serialize};

/// Reply to a request that wrote a file or a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileWritten {
    /// `ok`
    pub status: String,
    /// Metadata of the file, or of the directory of a tree.
    pub file: FileMetadata,
    /// Number of members that were created (trees only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Number of members that were left out (trees only).
    pub left_out: u64,
    /// Reasons why members were left out, at most 100.
    pub failures: Vec<FileFailure>,
}

/// Reply to a request that removed a file or a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileRemoved {
    /// `ok`
    pub status: String,
    /// Metadata of the removed file.
    pub file: FileMetadata,
    /// Number of removed files, including those beneath a directory.
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
    /// Path as base64, instead of `path`, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number (default: root).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Create missing parent directories, and accept a directory that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<bool>,
    /// Permission bits in octal (default: 755).
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
    /// Path as base64, instead of `path`, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// New absolute path, in the same file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// New path as base64, instead of `to`, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_base64: Option<String>,
    /// User of the guest whose rights apply, by name or number (default: root).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Fail if the new name exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_replace: Option<bool>,
}
