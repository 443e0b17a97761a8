//! Choice of the attributes and files that are created from a stream.

use crate::xattr_choice::XattrChoice;

/// Handling of device files in a stream, which are never created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A device file ends the operation.
    #[default]
    Refuse,
    /// A device file is left out, with a warning.
    LeaveOut,
}

/// Attributes that created files get in addition to contents and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnpackOptions {
    /// Modification times.
    pub times: bool,
    /// Numeric owners; otherwise, files belong to the user of this process.
    pub owners: bool,
    /// Set-user-id, set-group-id and file capabilities.
    pub set_id: bool,
    /// Extended attributes.
    pub xattrs: XattrChoice,
    /// Permission bits that no file gets, as by a umask.
    pub mask: u32,
    /// Device files.
    pub devices: DeviceChoice,
}
