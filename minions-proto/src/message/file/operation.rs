//! Operations of `file_start`.

use super::path::{GuestPath, GuestTarget};
use crate::error::Invalid;
use serde::{Deserialize, Serialize};

/// Largest mode: permission bits, set-user-id, set-group-id and sticky.
const MAX_MODE: u32 = 0o7777;

/// Largest mode of a new directory: permission bits and sticky. The kernel ignores the others.
const MAX_DIRECTORY_MODE: u32 = 0o1777;

/// Longest etag, in bytes. The agent's own are shorter.
const MAX_ETAG_LEN: usize = 256;

/// Operation on files, with the name of the operation in `op`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FileOperation {
    /// Reports the metadata of a file of any type.
    Stat(StatFile),
    /// Lists the entries of a directory.
    List(ListDirectory),
    /// Reads a regular file, or a part of it.
    Read(ReadFile),
    /// Replaces or creates a regular file with the input.
    Write(WriteStream),
    /// Creates a directory.
    Mkdir(MakeDirectory),
    /// Renames a file of any type.
    Rename(RenameFile),
    /// Removes a file of any type.
    Remove(RemoveFile),
    /// Reads a directory and everything beneath it as a tar stream.
    TarOut(PackTree),
    /// Creates the members of a tar stream, the input, beneath a directory.
    TarIn(UnpackTree),
    /// Reports changes in a directory.
    Watch(WatchTree),
    /// Serves many requests on files, one after the other (feature `file_session`).
    Session(ServeSession),
}

/// Operation `stat`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatFile {
    /// File to describe.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to describe the target of a symbolic link instead of the link.
    #[serde(default)]
    pub follow: bool,
}

/// Operation `list`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListDirectory {
    /// Directory to list.
    #[serde(flatten)]
    pub path: GuestPath,
}

/// Operation `read`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadFile {
    /// Regular file to read. Symbolic links are followed.
    #[serde(flatten)]
    pub path: GuestPath,
    /// Offset of the first byte to read.
    #[serde(default)]
    pub offset: u64,
    /// Largest number of bytes to read. Absent: up to the end of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Etag that the file must have for `offset` and `length` to apply. With another etag, the
    /// whole file is read; the header states the offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_range: Option<String>,
}

/// Operation `write`. The file appears under its name, complete, only after the end of the input.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WriteStream {
    /// File to write. A symbolic link of this name is replaced, not followed.
    #[serde(flatten)]
    pub path: GuestPath,
    /// Permission bits. Absent: those of the replaced file, or `0644`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner, `USER` or `USER:GROUP`. Absent: the owner of the replaced file, or the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// True to create missing parent directories.
    #[serde(default)]
    pub parents: bool,
    /// Etag that the existing file must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// True to fail if the name exists.
    #[serde(default)]
    pub create_only: bool,
}

/// Operation `mkdir`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// Directory to create.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to create missing parent directories, and to accept a directory that exists.
    #[serde(default)]
    pub parents: bool,
    /// Permission bits of a new directory. Absent: `0755`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Operation `rename`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RenameFile {
    /// Present name.
    #[serde(flatten)]
    pub path: GuestPath,
    /// New name, in the same file system.
    #[serde(flatten)]
    pub to: GuestTarget,
    /// True to fail if the new name exists.
    #[serde(default)]
    pub no_replace: bool,
}

/// Operation `remove`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RemoveFile {
    /// File to remove. A symbolic link is removed, not followed.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to remove a directory with everything beneath it.
    #[serde(default)]
    pub recursive: bool,
}

/// Operation `tar_out`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PackTree {
    /// Directory, or a single file.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to include extended attributes.
    #[serde(default)]
    pub xattrs: bool,
}

/// Operation `tar_in`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnpackTree {
    /// Existing directory beneath which the members are created.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to create the directory, with its parents, if it is missing.
    #[serde(default)]
    pub parents: bool,
    /// True to set the extended attributes in the stream.
    #[serde(default)]
    pub xattrs: bool,
    /// True to keep set-user-id and set-group-id. Otherwise both bits are cleared.
    #[serde(default)]
    pub set_id: bool,
    /// True to set the numeric owners in the stream. Otherwise the files belong to the user.
    #[serde(default)]
    pub owners: bool,
}

/// Operation `watch`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WatchTree {
    /// Directory or file to watch.
    #[serde(flatten)]
    pub path: GuestPath,
    /// True to watch all directories beneath it as well.
    #[serde(default)]
    pub recursive: bool,
}

/// Operation `session`. The messages on channels 0 and 1 are those of a
/// [file session](crate::file_session).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServeSession {}

/// Checks the form of `USER` or `USER:GROUP`.
pub(super) fn check_account(field: &str, account: &str) -> Result<(), Invalid> {
    if account.is_empty() || account.contains(['\0', '\n']) {
        return Err(Invalid::value(field, account, "must be a user name or number"));
    }
    Ok(())
}

impl FileOperation {
    /// Returns the name of the operation on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stat(_) => "stat",
            Self::List(_) => "list",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Mkdir(_) => "mkdir",
            Self::Rename(_) => "rename",
            Self::Remove(_) => "remove",
            Self::TarOut(_) => "tar_out",
            Self::TarIn(_) => "tar_in",
            Self::Watch(_) => "watch",
            Self::Session(_) => "session",
        }
    }

    /// Returns the path that the operation is about; `None` if its requests name the paths.
    #[must_use]
    pub fn path(&self) -> Option<&GuestPath> {
        Some(match self {
            Self::Stat(op) => &op.path,
            Self::List(op) => &op.path,
            Self::Read(op) => &op.path,
            Self::Write(op) => &op.path,
            Self::Mkdir(op) => &op.path,
            Self::Rename(op) => &op.path,
            Self::Remove(op) => &op.path,
            Self::TarOut(op) => &op.path,
            Self::TarIn(op) => &op.path,
            Self::Watch(op) => &op.path,
            Self::Session(_) => return None,
        })
    }

    /// Reports whether the operation reads channel 0 up to the end of the input.
    #[must_use]
    pub fn takes_input(&self) -> bool {
        matches!(self, Self::Write(_) | Self::TarIn(_) | Self::Session(_))
    }

    /// Checks for values that no guest accepts.
    ///
    /// # Errors
    ///
    /// The first invalid field, and the reason.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.path().map(GuestPath::bytes).transpose()?;
        match self {
            Self::Read(op) => {
                within_file("op.offset", Some(op.offset))?;
                within_file("op.length", op.length)?;
                check_etag("op.if_range", op.if_range.as_deref())
            }
            Self::Write(op) => op.validate(),
            Self::Mkdir(op) => check_mode(op.mode, MAX_DIRECTORY_MODE),
            Self::Rename(op) => op.to.bytes().map(|_| ()),
            Self::Stat(_)
            | Self::List(_)
            | Self::Remove(_)
            | Self::TarOut(_)
            | Self::TarIn(_)
            | Self::Watch(_)
            | Self::Session(_) => Ok(()),
        }
    }
}

impl WriteStream {
    fn validate(&self) -> Result<(), Invalid> {
        let path = self.path.bytes()?;
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if matches!(last, b"" | b"." | b"..") {
            let shown = String::from_utf8_lossy(&path);
            return Err(Invalid::value("op.path", &shown, "must end with a file name"));
        }
        check_mode(self.mode, MAX_MODE)?;
        if let Some(owner) = &self.owner {
            check_account("op.owner", owner)?;
        }
        check_etag("op.if_match", self.if_match.as_deref())?;
        if self.create_only && self.if_match.is_some() {
            let reason = "contradicts `op.if_match`, which requires an existing file; give one";
            return Err(Invalid::new("op.create_only", reason));
        }
        Ok(())
    }
}

fn check_mode(mode: Option<u32>, most: u32) -> Result<(), Invalid> {
    match mode {
        Some(mode) if mode > most => {
            let reason = format!("is {mode}: must be at most {most} (0o{most:o})");
            Err(Invalid::new("op.mode", reason))
        }
        _ => Ok(()),
    }
}

fn check_etag(field: &str, etag: Option<&str>) -> Result<(), Invalid> {
    match etag {
        Some(etag) if etag.is_empty() || etag.len() > MAX_ETAG_LEN => {
            let reason = format!("must be an etag of 1 to {MAX_ETAG_LEN} bytes");
            Err(Invalid::new(field, reason))
        }
        _ => Ok(()),
    }
}

/// Checks an offset: the kernel's are signed.
fn within_file(field: &str, value: Option<u64>) -> Result<(), Invalid> {
    let most = i64::MAX.unsigned_abs();
    match value {
        Some(value) if value > most => {
            Err(Invalid::new(field, format!("is {value}: must be at most {most}")))
        }
        _ => Ok(()),
    }
}
