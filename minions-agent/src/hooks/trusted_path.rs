//! Check of a path: only root and the agent's own user may determine what it leads to.

use super::WRITABLE_BY_OTHERS;
use rustix::io::Errno;
use rustix::process::geteuid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links on a path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Mode bit of a directory in which users can only remove their own entries.
const STICKY: u32 = 0o1000;

/// Reports whether other users can change neither the file nor a directory or a symbolic link on the way to it. If they
/// cannot, the result stays the same until the file is opened by this path.
pub(super) fn is_trusted(path: &Path) -> io::Result<bool> {
    let mut left: VecDeque<OsString> = names(&std::path::absolute(path)?).collect();
    let mut reached = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            reached.pop();
            continue;
        }
        let entry = reached.join(&name);
        let metadata = fs::symlink_metadata(&entry)?;
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = fs::read_link(&entry)?;
            if target.is_absolute() {
                reached = PathBuf::from("/");
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(name);
            }
        }
        if !is_unchangeable(&metadata, !left.is_empty()) {
            return Ok(false);
        }
        if !metadata.is_symlink() {
            reached = entry;
        }
    }
    Ok(true)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

fn is_unchangeable(metadata: &Metadata, is_on_the_way: bool) -> bool {
    let is_own = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
    let is_writable = !metadata.is_symlink() && metadata.mode() & WRITABLE_BY_OTHERS != 0;
    // The owner of the entry that is used is checked too, so no other user can replace it in such a directory.
    let is_sticky = is_on_the_way && metadata.is_dir() && metadata.mode() & STICKY != 0;
    is_own && (!is_writable || is_sticky)
}
