//! `write_file`: put a file into the guest.

use super::{Call, Done};
use serde::{Deserialize, Serialize};

/// The request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteFile {
    /// Absolute path. Missing parent directories are created.
    pub path: String,
    /// The text to write.
    pub content: String,
    /// Permission bits as a number: 384 is `0600`. Absent: an existing file keeps its own, a new
    /// one gets `0644`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Add to the end instead of replacing the whole.
    #[serde(default)]
    pub append: bool,
}

impl Call for WriteFile {
    type Reply = Done;
    const TYPE: &'static str = "write_file";
    // Replacing twice is replacing once, but appending twice is not.
    const IDEMPOTENT: bool = false;
}
