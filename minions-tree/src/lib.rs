//! Files and trees of one machine, for the agent in the guest and for `minionsctl cp` on the host.
//!
//! A tar stream from the other side is not trusted. Paths may lead through directories that other users can change.
//!
//! # Layout
//!
//! * [`files`]: names in open directories; a file gets its name only when it is complete.
//! * [`walk`]: reading a tree. [`content`]: sending the contents of a file.
//! * [`pack`]: a tree as a tar stream. [`unpack`]: the members of a tar stream beneath a directory.
//!   [`rename`]: a tar stream with other names.
//! * [`error`]: the failure of one step, with its path.

pub mod content;
pub mod error;
pub mod files;
mod member_attributes;
mod member_path;
pub mod pack;
pub mod rename;
mod rename_options;
mod sole_name;
mod sparse_map;
mod tar_member;
mod tar_reader;
pub mod unpack;
mod unpack_options;
pub mod walk;
mod xattr_choice;

pub use error::FileError;
pub use sole_name::SoleName;
pub use xattr_choice::XattrChoice;

/// Length of the buffers between files and pipes, in bytes.
pub const BUFFER_LEN: usize = 128 * 1024;

/// Returns the length of the buffer for `left` bytes: at most [`BUFFER_LEN`].
pub(crate) fn buffer_len(left: u64) -> usize {
    usize::try_from(left).unwrap_or(BUFFER_LEN).min(BUFFER_LEN)
}
