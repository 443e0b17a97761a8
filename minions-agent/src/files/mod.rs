//! Files of the guest, also in directories that other users may change.
//!
//! The agent is root, so a path is an order to root. Whoever may change a directory on that path may
//! try to turn the order to another file: by a link, by a file made beforehand, by an exchange between
//! two system calls. So a path is resolved once, one directory at a time, into a [`Place`]: an open
//! directory and a name in it. Everything else is done relative to that directory.
//!
//! ```text
//!  path ─▶ Walk: opens one directory after the other ─▶ Place: directory + name ─┬─▶ present
//!           follows a link only if root alone made it                            ├─▶ replace
//!                                                                                └─▶ open_to_append
//! ```
//!
//! # Layout
//!
//! * `directory`: an open directory, and who may change its entries.
//! * `resolve`: from a path to a [`Place`].
//! * `place`: what is done with a name in a directory.

mod directory;
mod place;
mod resolve;

pub(crate) use place::{Attributes, Place, is_regular};
pub(crate) use resolve::ResolveError;

/// Permission bits of a mode.
pub(crate) const MODE_BITS: u32 = 0o7777;
