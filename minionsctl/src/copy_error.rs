//! Failures of `cp`.

use minions_tree::FileError;

/// Failure of a copy that minionsd did not report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// A file on this host could not be read or written, or a stream was refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The source is a directory.
    #[error("{path} is a directory: copy it with -r, or with -a to keep owners and times")]
    IsDirectory {
        /// The source.
        path: String,
    },
    /// The destination of several sources, or of a directory, is another file.
    #[error("the destination {path} is not a directory")]
    NotDirectory {
        /// The destination.
        path: String,
    },
    /// Several sources need a directory that exists.
    #[error(
        "the destination of several sources must be an existing directory: {path} does not exist"
    )]
    NoDirectory {
        /// The destination.
        path: String,
    },
    /// The destination ends with a slash.
    #[error(
        "the directory {path} does not exist: leave the final slash out to create a file of this name"
    )]
    NoSuchDirectory {
        /// The destination.
        path: String,
    },
    /// The contents of the source are to be copied.
    #[error("{path} is not a directory, so it has no contents to copy")]
    NoContents {
        /// The source.
        path: String,
    },
    /// The directory would be created where a link is.
    #[error(
        "{path} is a symbolic link: name the directory that it leads to, with a slash and a dot at the end of the source"
    )]
    IsLink {
        /// The destination.
        path: String,
    },
    /// The source does not contain one file.
    #[error("{path} is not a regular file: copy it with -r")]
    NotRegular {
        /// The source.
        path: String,
    },
}
