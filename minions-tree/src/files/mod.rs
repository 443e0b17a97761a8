//! Files of the guest, also in directories that other users may change.
//!
//! The agent is usually root, so a write to a path has the rights of root. A user who may change a directory on that
//! path may try to redirect the write to another file: with a link, with a file created in advance, or by
//! exchanging files between two system calls. So a path is resolved once, one directory at a time, into a
//! [`FileLocation`]: an open directory and a name in it. All further steps are relative to that directory.
//!
//! ```text
//!  path ─▶ PathWalk: opens one directory after the other ─▶ FileLocation: directory + name ─┬─▶ present
//!           follows only links that root alone can have created                             ├─▶ replace, replace_by_link
//!                                                                                           └─▶ open_to_append
//! ```
//!
//! # Layout
//!
//! * `directory`: an open directory, and the users that may change its entries.
//! * `resolve`: resolution of a path to a [`FileLocation`].
//! * `location`: operations on a name in a directory.
//! * `new_file`: a file that gets its name only when it is complete.
//! * `tree_root`: a directory in which no name, link or `..` leads out of it.
//! * `replace`: replacement of files at paths that the agent itself has chosen.

mod directory;
mod location;
mod new_file;
mod replace;
mod resolve;
mod tree_root;

pub(crate) use location::SET_ID;
pub use location::{FileAttributes, FileLocation, MODE_BITS, is_regular};
pub use new_file::{NameConflict, NewFile};
pub use replace::{replace, replace_or_overwrite};
pub use resolve::ResolveError;
pub use tree_root::TreeRoot;
