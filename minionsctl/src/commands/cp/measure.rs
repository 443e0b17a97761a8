//! Size of a tree, for the progress.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Largest number of directories that wait for their listing.
const MAX_WAITING: usize = 100_000;

/// Returns the size of all regular files beneath a path, in bytes. Files that cannot be examined are not counted.
pub(super) fn measure(path: &[u8]) -> u64 {
    let root = PathBuf::from(OsStr::from_bytes(path));
    let mut total =
        fs::symlink_metadata(&root).ok().filter(fs::Metadata::is_file).map_or(0, |file| file.len());
    let mut waiting = vec![root];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() && waiting.len() < MAX_WAITING => {
                    waiting.push(entry.path());
                }
                Ok(found) if found.is_file() => total += found.len(),
                Ok(_) | Err(_) => {}
            }
        }
    }
    total
}
