//! Rules for the name that a source gets at the destination: those of cp(1) and docker.

use super::copy_end::CopyEnd;
use crate::copy_error::CopyError;
use minions_tree::walk::beneath;

/// State of the destination before the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DestinationState {
    /// A directory, also through a symbolic link.
    Directory,
    /// A file of another type.
    OtherFile,
    /// A name without a file.
    Missing,
}

/// Name in the path of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SourceName {
    /// The last part of the path.
    Named(Vec<u8>),
    /// The contents of a directory: the path ends with `.` or `..`, or is `/`.
    Contents,
}

impl SourceName {
    /// Returns the name in a path.
    pub(super) fn of(path: &[u8]) -> Self {
        match last_part(path) {
            b"" | b"." | b".." => Self::Contents,
            name => Self::Named(name.to_vec()),
        }
    }
}

/// Place where a source is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CopyTarget {
    /// A name in a directory.
    Named {
        /// Path of the directory.
        parent: Vec<u8>,
        /// Name of the copy.
        name: Vec<u8>,
    },
    /// The contents of the source are created in this directory.
    Contents {
        /// Path of the directory.
        directory: Vec<u8>,
    },
}

impl CopyTarget {
    /// Determines the place.
    ///
    /// # Errors
    ///
    /// [`CopyError`]: the destination does not fit the source.
    pub(super) fn of(
        destination: &CopyEnd,
        state: DestinationState,
        source: &SourceName,
        is_directory: bool,
    ) -> Result<Self, CopyError> {
        let path = destination.path();
        let shown = || destination.to_string();
        let names_directory = path.ends_with(b"/") || matches!(last_part(path), b"." | b"..");
        match (state, source) {
            (DestinationState::Directory, SourceName::Contents) => {
                Ok(Self::Contents { directory: path.to_vec() })
            }
            (DestinationState::Directory, SourceName::Named(name)) => {
                Ok(Self::Named { parent: path.to_vec(), name: name.clone() })
            }
            (DestinationState::OtherFile, _) if is_directory || names_directory => {
                Err(CopyError::NotDirectory { path: shown() })
            }
            (DestinationState::Missing, _) if names_directory && !is_directory => {
                Err(CopyError::NoSuchDirectory { path: shown() })
            }
            (DestinationState::OtherFile | DestinationState::Missing, _) => Ok(renamed(path)),
        }
    }

    /// Returns the path of the copy.
    pub(super) fn path(&self) -> Vec<u8> {
        match self {
            Self::Named { parent, name } => beneath(parent, name),
            Self::Contents { directory } => directory.clone(),
        }
    }
}

/// Returns the place for a copy with another name.
fn renamed(path: &[u8]) -> CopyTarget {
    let name = last_part(path);
    let trimmed = without_end_slashes(path);
    let parent = match &trimmed[..trimmed.len() - name.len()] {
        b"" => b".",
        parent => parent,
    };
    CopyTarget::Named { parent: parent.to_vec(), name: name.to_vec() }
}

/// Returns a path without the slashes at its end.
fn without_end_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    &path[..end]
}

/// Returns the last part of a path, without slashes; empty for `/`.
fn last_part(path: &[u8]) -> &[u8] {
    let trimmed = without_end_slashes(path);
    let start = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    &trimmed[start..]
}

#[cfg(test)]
mod tests {
    use super::DestinationState::{Directory, Missing, OtherFile};
    use super::*;

    fn target(
        destination: &str,
        state: DestinationState,
        source: &str,
        is_directory: bool,
    ) -> Option<String> {
        let end = CopyEnd::Host(destination.into());
        let source = SourceName::of(source.as_bytes());
        let target = CopyTarget::of(&end, state, &source, is_directory).ok()?;
        let path = String::from_utf8(target.path()).unwrap();
        Some(match target {
            CopyTarget::Named { .. } => path,
            CopyTarget::Contents { .. } => format!("in {path}"),
        })
    }

    #[test]
    fn the_copy_has_the_name_that_cp_would_give_it() {
        for (destination, state, source, is_directory, expected) in [
            ("/d", Directory, "/a/f", false, Some("/d/f")),
            ("/d/", Directory, "f", false, Some("/d/f")),
            ("/d", Directory, "/a/dir/", true, Some("/d/dir")),
            ("/d", Directory, "/a/dir/.", true, Some("in /d")),
            ("/d", Directory, "..", true, Some("in /d")),
            ("/d", Directory, "/", true, Some("in /d")),
            (".", Directory, "/a/f", false, Some("./f")),
            ("/d/new", Missing, "/a/f", false, Some("/d/new")),
            ("new", Missing, "/a/f", false, Some("./new")),
            ("/new", Missing, "/a/f", false, Some("/new")),
            ("/d/new/", Missing, "/a/dir", true, Some("/d/new")),
            ("/d/new", Missing, "/a/dir/.", true, Some("/d/new")),
            ("/d/new/", Missing, "/a/f", false, None),
            ("/d/new/.", Missing, "/a/f", false, None),
            ("/d/f", OtherFile, "/a/f", false, Some("/d/f")),
            ("/d/f/", OtherFile, "/a/f", false, None),
            ("/d/f", OtherFile, "/a/dir", true, None),
        ] {
            let found = target(destination, state, source, is_directory);
            assert_eq!(found.as_deref(), expected, "{source} to {destination}");
        }
    }
}
