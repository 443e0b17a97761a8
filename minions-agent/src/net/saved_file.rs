//! Saved copy of a file, for restoring it.

use minions_tree::files::{self, FileAttributes, FileLocation, MODE_BITS};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Maximum length of a saved file, in bytes. A larger file is not a network configuration, and is refused.
const MAX_LEN: u64 = 1024 * 1024;

/// A path, and the file that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedFile {
    pub(super) path: PathBuf,
    pub(super) was: SavedContent,
}

/// Earlier content of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SavedContent {
    Absent,
    Link(PathBuf),
    File { content: Vec<u8>, mode: u32, user: u32, group: u32 },
}

impl SavedFile {
    /// Saves the file at `path`; of a symbolic link, saves the link and not its target.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let was = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => SavedContent::Absent,
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_symlink() => SavedContent::Link(fs::read_link(path)?),
            Ok(metadata) => {
                let mut content = Vec::new();
                let file = fs::File::open(path)?;
                if file.take(MAX_LEN + 1).read_to_end(&mut content)? as u64 > MAX_LEN {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                let mode = metadata.permissions().mode() & MODE_BITS;
                SavedContent::File { content, mode, user: metadata.uid(), group: metadata.gid() }
            }
        };
        Ok(Self { path: path.to_owned(), was })
    }

    /// Restores the file if it has changed. Returns whether it had.
    pub(super) fn restore(&self) -> io::Result<bool> {
        if Self::read(&self.path).is_ok_and(|now| now == *self) {
            return Ok(false);
        }
        match &self.was {
            SavedContent::Absent => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            SavedContent::Link(target) => {
                FileLocation::of_agent(&self.path)?.replace_by_link(target)?;
            }
            SavedContent::File { content, mode, user, group } => {
                let attributes = FileAttributes { mode: *mode, owner: Some((*user, *group)) };
                files::replace_or_overwrite(&self.path, content, attributes)?;
            }
        }
        Ok(true)
    }

    /// Returns the content if the path had a regular file.
    pub(super) fn content(&self) -> Option<&[u8]> {
        match &self.was {
            SavedContent::File { content, .. } => Some(content),
            SavedContent::Absent | SavedContent::Link(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_links_and_absence_are_restored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let states: [&dyn Fn(); 3] =
            [&|| {}, &|| symlink("elsewhere/none", &path).unwrap(), &|| {
                fs::write(&path, b"\xffnot text\n").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
            }];
        for (at, make) in states.iter().enumerate() {
            make();
            let saved = SavedFile::read(&path).unwrap();
            assert!(!saved.restore().unwrap(), "{at}");
            let _ = fs::remove_file(&path);
            fs::write(&path, "something else").unwrap();
            assert!(saved.restore().unwrap(), "{at}");
            assert_eq!(SavedFile::read(&path).unwrap(), saved);
            let _ = fs::remove_file(&path);
        }
    }
}
