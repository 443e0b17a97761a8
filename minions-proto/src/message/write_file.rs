//! `write_file`: writes a file in the guest.

use super::call::Call;
use super::reply::Done;
use serde::{Deserialize, Serialize};

/// Request to write a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteFile {
    /// Absolute path. Missing parent directories are created.
    pub path: String,
    /// Text to write.
    pub content: String,
    /// Permission bits as a number: 384 is `0600`. Absent: an existing file keeps its own, a new
    /// one gets `0644`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// True to append the text instead of replacing the file.
    #[serde(default)]
    pub append: bool,
}

impl Call for WriteFile {
    type Reply = Done;
    const TYPE: &'static str = "write_file";
    // Replacing a file can be repeated, but appending cannot.
    const IDEMPOTENT: bool = false;
}
