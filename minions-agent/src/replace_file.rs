//! A file is either the old one or the new one, never a mixture.

use crate::files::MODE_BITS;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use tempfile::Builder;

/// What a file has beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits.
    pub(crate) mode: u32,
    /// User and group; `None`: ours.
    pub(crate) owner: Option<(u32, u32)>,
}

/// Puts a file with `content` at `path`, in place of whatever has this name: even after a power cut
/// it is the old one or the new one. On failure nothing has changed, and nothing is left behind.
pub(crate) fn replace(path: &Path, content: &[u8], attributes: Attributes) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // In the same directory: a rename doesn't cross filesystems.
    let mut temporary = Builder::new().make_in(parent, create)?;
    // To the file itself: through its owner, an error would lose the kernel's number.
    temporary.as_file_mut().write_all(content)?;
    let file = temporary.as_file();
    if let Some((user, group)) = attributes.owner {
        fchown(file, Some(user), Some(group))?;
    }
    // After the owner: a change of owner takes set-user-id away.
    file.set_permissions(Permissions::from_mode(attributes.mode))?;
    file.sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(parent)?.sync_all()
}

/// As [`replace`], and where the name itself cannot be replaced, because it is a mount point or its directory is
/// read-only, overwrites the file that has it. A power cut in between can leave a part of the content.
pub(crate) fn replace_or_overwrite(
    path: &Path,
    content: &[u8],
    attributes: Attributes,
) -> io::Result<()> {
    let refused = match replace(path, content, attributes) {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::BUSY | Errno::ROFS)) => {
            error
        }
        other => return other,
    };
    match overwrite(path, content, attributes) {
        // There is no file to overwrite: the first error says more.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::LOOP)) => {
            Err(refused)
        }
        other => other,
    }
}

/// The length is cut last, so that an error for lack of room does not lose what the file has beyond it.
fn overwrite(path: &Path, content: &[u8], attributes: Attributes) -> io::Result<()> {
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

/// A file of the agent's own alone. An error is the kernel's: the name of a temporary file means nothing to a reader.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}
