//! Atomic replacement of a file at a path of the agent's own: readers see either the old or the new content, never
//! a mixture.

use super::location::{FileAttributes, FileLocation, MODE_BITS};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Replaces the file at `path`, of any type, with a file that contains `content`; see [`FileLocation::replace`].
pub fn replace(path: &Path, content: &[u8], attributes: FileAttributes) -> io::Result<()> {
    FileLocation::of_agent(path)?.replace(content, attributes)
}

/// Replaces a file like [`replace`]. If the name cannot be replaced, because it is a mount point or its directory
/// is read-only, overwrites the existing file instead; then a power cut can leave incomplete content.
pub fn replace_or_overwrite(
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
        // There is no file to overwrite, so the first error is more informative.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const OWN: FileAttributes = FileAttributes { mode: 0o640, owner: None };

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_link_is_replaced_and_a_link_to_its_directory_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::write(dir.path().join("target"), "untouched").unwrap();
        symlink("real", dir.path().join("alias")).unwrap();
        symlink("../target", real.join("file")).unwrap();
        replace(&dir.path().join("alias/file"), b"new", OWN).unwrap();
        let file = fs::symlink_metadata(real.join("file")).unwrap();
        assert!(file.is_file());
        assert_eq!(file.mode() & MODE_BITS, 0o640);
        assert_eq!(fs::read(real.join("file")).unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join("target")).unwrap(), b"untouched");
        assert_eq!(entries(&real), 1);
    }

    #[test]
    fn a_failure_leaves_the_old_entry_and_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, b"new", OWN).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::ISDIR));
        assert!(path.is_dir());
        assert_eq!(entries(dir.path()), 1);
        let missing = dir.path().join("missing/name");
        let error = replace_or_overwrite(&missing, b"new", OWN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
