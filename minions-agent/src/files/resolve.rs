//! From a path to an open directory and a name in it.
//!
//! The kernel would follow any link on the way; and what was looked at before may be another file by
//! the time it is opened. So each step opens one name in the directory before it, and what was opened is
//! what is looked at. A real directory is entered whoever owns it: whoever changes its entries changes
//! nothing but them. A link is followed only if it is root's and in a directory that only root changes.

use super::directory::{Directory, is_ours};
use super::place::Place;
use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// As the kernel's `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;

/// As the kernel's `PATH_MAX`, the final NUL included.
const MAX_PATH: usize = 4096;

/// What is cut by the umask for a directory that had to be made.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("goes through the symbolic link {link:?}, which a user other than root can replace")]
    ForeignLink { link: PathBuf },
    #[error(
        "goes up from {directory:?} by `..`, and a user other than root can move that directory"
    )]
    Upwards { directory: PathBuf },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for ResolveError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl Place {
    /// The place of an absolute path with a name at its end. Directories that are missing are made.
    pub(crate) fn make(path: &Path) -> Result<Self, ResolveError> {
        if path.as_os_str().len() >= MAX_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let mut walk = Walk::from_root()?;
        walk.add(path.parent().ok_or(Errno::INVAL)?);
        while walk.step()? {}
        Ok(Self::new(walk.at, name.to_owned()))
    }
}

/// A walk along a path, at one of its directories.
struct Walk {
    at: Directory,
    /// The same, in words.
    shown: PathBuf,
    /// Names yet to be entered, the next one last.
    left: Vec<OsString>,
    links: u32,
    /// Whether others can move what has been entered to another directory.
    is_adrift: bool,
}

impl Walk {
    fn from_root() -> io::Result<Self> {
        let (at, shown) = (Directory::root()?, PathBuf::from("/"));
        Ok(Self { at, shown, left: Vec::new(), links: 0, is_adrift: false })
    }

    /// Puts `path` before all that is left.
    fn add(&mut self, path: &Path) {
        let names = path.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.left.extend(names);
    }

    /// One name further; false once there is none.
    fn step(&mut self) -> Result<bool, ResolveError> {
        let Some(name) = self.left.pop() else { return Ok(false) };
        if name == ".." && self.is_adrift {
            return Err(ResolveError::Upwards { directory: self.shown.clone() });
        }
        let entered = self.at.enter(&name).or_else(|error| self.make(&name, error));
        match entered {
            Ok(next) => self.go(next, &name),
            Err(error) => self.follow(&name, error)?,
        }
        Ok(true)
    }

    /// Makes and enters the directory `name`, if that could not be entered because it is missing.
    fn make(&self, name: &OsStr, error: io::Error) -> io::Result<Directory> {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(error);
        }
        match mkdirat(&self.at, name, DIRECTORY_MODE) {
            // Another process was faster: what it made is looked at.
            Ok(()) | Err(Errno::EXIST) => self.at.enter(name),
            Err(error) => Err(error.into()),
        }
    }

    fn go(&mut self, next: Directory, name: &OsStr) {
        if name == ".." {
            self.shown.pop();
        } else {
            self.shown.push(name);
            self.is_adrift |= self.at.entries_can_be_moved();
        }
        self.at = next;
    }

    /// Goes where the link `name` leads, if that could not be entered because it is one.
    fn follow(&mut self, name: &OsStr, error: io::Error) -> Result<(), ResolveError> {
        if !matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) {
            return Err(error.into());
        }
        let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = openat(&self.at, name, itself, Mode::empty())?;
        let stat = fstat(&link)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(error.into());
        }
        if !is_ours(stat.st_uid) || !self.at.is_closed() {
            return Err(ResolveError::ForeignLink { link: self.shown.join(name) });
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = OsString::from_vec(readlinkat(&link, "", Vec::new())?.into_bytes());
        if target.as_bytes().starts_with(b"/") {
            let left = std::mem::take(&mut self.left);
            let links = self.links;
            *self = Self { left, links, ..Self::from_root()? };
        }
        self.add(Path::new(&target));
        Ok(())
    }
}
