//! Configuration files that the agent writes for the guest's network services.

use minions_tree::files::{self, FileAttributes};
use std::fs;
use std::io;
use std::path::Path;

/// Attributes of a file that did not exist: readable by all users, because all resolve names.
pub(super) const NEW: FileAttributes = FileAttributes { mode: 0o644, owner: None };

/// Writes a file, and creates its directory if it is missing.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    write_with(path, text, NEW)
}

/// Writes a file with these attributes, and creates its directory if it is missing.
pub(super) fn write_with(path: &Path, text: &str, attributes: FileAttributes) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    files::replace_or_overwrite(path, text.as_bytes(), attributes)
}
