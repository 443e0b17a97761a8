//! Contents of the streams of a file operation: the lines that are JSON, written by the agent and
//! read by daemon and command line.
//!
//! ```text
//!  standard output   header line, "\n", then nothing, the bytes of the file, a tar, or NDJSON
//!  standard error    failure lines
//! ```

use crate::json;
use crate::message::{decoded_name, encoded_name};
use bytes::{Buf, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest line, in bytes: a path, base64 of it and a message, all of them escaped.
pub const MAX_LINE_LEN: usize = 128 * 1024;

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
    /// A type that was added after this version, or that the file system does not report.
    #[serde(other)]
    Other,
}

/// Metadata of a file. Written by the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileMetadata {
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
    /// Time of the last change of the contents, in nanoseconds since 1970 (UTC).
    pub mtime_ns: i64,
    /// Strong validator: it differs after any change of the contents or the metadata.
    pub etag: String,
    /// Target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Bytes of the target, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_base64: Option<String>,
}

/// First line of standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHeader {
    /// Metadata of the file that the operation is about, after the operation; of a removed file,
    /// before it.
    #[serde(flatten)]
    pub metadata: FileMetadata,
    /// Offset of the first byte that follows (`read`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Number of bytes that follow (`read`). Absent: unknown, as for files in `/proc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Number of files that were removed (`remove`) or created (`tar_in`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl From<FileMetadata> for FileHeader {
    fn from(metadata: FileMetadata) -> Self {
        Self { metadata, offset: None, length: None, count: None }
    }
}

/// Line of the operation `list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DirectoryEntry {
    /// Name in the directory.
    pub name: String,
    /// Bytes of the name, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_base64: Option<String>,
    /// Metadata of the entry; a symbolic link is not followed.
    #[serde(flatten)]
    pub metadata: FileMetadata,
}

/// Type of a [`FileEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileEventKind {
    /// A name appeared: a new file, or one that was moved into the watched directories.
    Created,
    /// The contents or the metadata changed.
    Modified,
    /// A name disappeared: removed, or moved out of the watched directories.
    Removed,
    /// A file was renamed within the watched directories, from `path` to `to`.
    Moved,
    /// Events were lost: list the directories again.
    Overflow,
    /// A type that was added after this version.
    #[serde(other)]
    Other,
}

/// Line of the operation `watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileEvent {
    /// Type of the event.
    pub event: FileEventKind,
    /// Path of the file. Empty for `overflow`.
    #[serde(default)]
    pub path: String,
    /// Bytes of the path, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// New path of a moved file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Bytes of the new path, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_base64: Option<String>,
    /// True if the file is a directory.
    #[serde(default)]
    pub directory: bool,
}

/// Line of standard error: the failure of the operation, or a warning about one of several files.
/// Written by the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct FileFailure {
    /// Name of the kernel's error number (`ENOENT`), also where the agent itself refuses.
    pub errno: String,
    /// Path that the failure is about.
    pub path: String,
    /// Bytes of the path, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// Step that failed: `open`, `read`, `if_match`.
    pub step: String,
    /// Text for people: path, step and reason.
    pub message: String,
    /// True if the operation continued without this file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
}

impl DirectoryEntry {
    /// Creates the entry of this name.
    #[must_use]
    pub fn new(name: &[u8], metadata: FileMetadata) -> Self {
        let (name, name_base64) = encoded_name(name);
        Self { name, name_base64, metadata }
    }

    /// Returns the bytes of the name, or `None` if the guest sent invalid base64.
    #[must_use]
    pub fn name_bytes(&self) -> Option<Vec<u8>> {
        decoded_name(&self.name, self.name_base64.as_deref())
    }
}

impl FileEvent {
    /// Creates an event about this path.
    #[must_use]
    pub fn new(event: FileEventKind, path: &[u8], to: Option<&[u8]>, directory: bool) -> Self {
        let (path, path_base64) = encoded_name(path);
        let (to, to_base64) = match to.map(encoded_name) {
            Some((to, to_base64)) => (Some(to), to_base64),
            None => (None, None),
        };
        Self { event, path, path_base64, to, to_base64, directory }
    }
}

/// Violation of the form of a file operation's streams by an agent.
#[derive(Debug, thiserror::Error)]
pub enum FileStreamError {
    /// A line is longer than [`MAX_LINE_LEN`].
    #[error("the agent sent a line of more than {MAX_LINE_LEN} bytes")]
    TooLong,
    /// A line is not the expected JSON.
    #[error("the agent sent a malformed line")]
    Malformed(#[source] serde_json::Error),
}

/// Splits a stream into lines of bounded length.
#[derive(Debug, Default)]
pub struct LineDecoder {
    buffer: BytesMut,
    /// Number of leading bytes of `buffer` that contain no newline.
    searched: usize,
}

impl LineDecoder {
    /// Adds bytes of the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete line, without its newline.
    ///
    /// # Errors
    ///
    /// [`FileStreamError::TooLong`].
    pub fn next_line(&mut self) -> Result<Option<Bytes>, FileStreamError> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        match found.map(|at| self.searched + at) {
            Some(end) if end <= MAX_LINE_LEN => {
                self.searched = 0;
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(1);
                Ok(Some(line))
            }
            None if self.buffer.len() <= MAX_LINE_LEN => {
                self.searched = self.buffer.len();
                Ok(None)
            }
            Some(_) | None => Err(FileStreamError::TooLong),
        }
    }

    /// Returns the next complete line as JSON.
    ///
    /// # Errors
    ///
    /// [`FileStreamError`].
    pub fn next_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FileStreamError> {
        self.next_line()?
            .map(|line| json::from_slice(&line).map_err(FileStreamError::Malformed))
            .transpose()
    }

    /// Returns the bytes after the last line that was returned.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

#[cfg(test)]
mod tests;
