//! Choice of the attributes that a stream with new names keeps.

use crate::xattr_choice::XattrChoice;

/// Attributes of the members of a stream with new names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RenameOptions {
    /// Replacement for the modification times.
    pub mtime: Option<i64>,
    /// Keeps set-user-id and set-group-id.
    pub set_id: bool,
    /// Extended attributes that are kept.
    pub xattrs: XattrChoice,
}
