//! Atomic replacement of a file: readers see either the old or the new content, never a mixture.

use crate::files::MODE_BITS;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use tempfile::Builder;

/// Mode and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileAttributes {
    /// Permission bits.
    pub(crate) mode: u32,
    /// User and group; `None`: the agent's own.
    pub(crate) owner: Option<(u32, u32)>,
}

/// Replaces whatever is at `path` by a file with `content`. Even after a power cut, the path has either
/// the old or the new file. On failure nothing has changed, and no temporary file remains.
pub(crate) fn replace(path: &Path, content: &[u8], attributes: FileAttributes) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // In the same directory: a rename cannot cross filesystems.
    let mut temporary = Builder::new().make_in(parent, create)?;
    // Written to the `File`, because `NamedTempFile` wraps errors and the errno would be lost.
    temporary.as_file_mut().write_all(content)?;
    let file = temporary.as_file();
    if let Some((user, group)) = attributes.owner {
        fchown(file, Some(user), Some(group))?;
    }
    // After the owner: a change of owner clears set-user-id.
    file.set_permissions(Permissions::from_mode(attributes.mode))?;
    file.sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(parent)?.sync_all()
}

/// Replaces a file like [`replace`]. If the name cannot be replaced, because it is a mount point or its directory
/// is read-only, overwrites the existing file instead; then a power cut can leave a part of the content.
pub(crate) fn replace_or_overwrite(
    path: &Path,
    content: &[u8],
    attributes: FileAttributes,
) -> io::Result<()> {
    let refused = match replace(path, content, attributes) {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::BUSY | Errno::ROFS)) => {
            error
        }
        other => return other,
    };
    match overwrite(path, content, attributes) {
        // There is no file to overwrite: the first error is more informative.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::LOOP)) => {
            Err(refused)
        }
        other => other,
    }
}

/// Overwrites an existing file. Truncates last, so that a full disk does not also lose the rest of the old content.
fn overwrite(path: &Path, content: &[u8], attributes: FileAttributes) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let mut file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let present = file.metadata()?;
    if !present.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    if let Some((user, group)) = attributes.owner
        && (user, group) != (present.uid(), present.gid())
    {
        fchown(&file, Some(user), Some(group))?;
    }
    if present.mode() & MODE_BITS != attributes.mode {
        file.set_permissions(Permissions::from_mode(attributes.mode))?;
    }
    file.sync_all()
}

/// Creates a file that only the agent can open. Returns the kernel's error without the path, because the name of
/// the temporary file would only confuse a reader.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}
