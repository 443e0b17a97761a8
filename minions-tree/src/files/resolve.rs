//! Resolution of a path to an open directory and a name in it.
//!
//! The kernel would follow any link on the path, and a name that was checked may refer to another file by
//! the time it is opened. So each step opens one name in the directory before it, and checks the opened
//! file. A real directory is entered regardless of its owner, who can only affect the entries in it. A link
//! is followed only if it belongs to root and is in a directory that only root can change.

use super::directory::{OpenDirectory, is_ours};
use super::location::FileLocation;
use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Maximum number of links on one path, equal to the kernel's `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;

/// Maximum length of a path with its final NUL, in bytes, equal to the kernel's `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// Mode of missing directories that are created; the umask is applied.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// Reason why a path cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Another user may have created the link.
    #[error("goes through the symbolic link {link:?}, which a user other than root can replace")]
    ForeignLink {
        /// Path of the link.
        link: PathBuf,
    },
    /// Another user may have moved the directory.
    #[error(
        "goes up from {directory:?} by `..`, and a user other than root can move that directory"
    )]
    Upwards {
        /// Path of the directory.
        directory: PathBuf,
    },
    /// The kernel refused a step.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for ResolveError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl FileLocation {
    /// Resolves an absolute path that ends with a file's name. Creates missing directories.
    pub fn make(path: &Path) -> Result<Self, ResolveError> {
        Self::resolve(path, MissingDirectory::Create)
    }

    /// Resolves an absolute path that ends with a file's name.
    ///
    /// # Errors
    ///
    /// `ENOENT` for a missing directory.
    pub fn find(path: &Path) -> Result<Self, ResolveError> {
        Self::resolve(path, MissingDirectory::Fail)
    }

    fn resolve(path: &Path, missing: MissingDirectory) -> Result<Self, ResolveError> {
        if path.as_os_str().len() >= MAX_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let mut walk = PathWalk::from_root(missing)?;
        walk.add(path.parent().ok_or(Errno::INVAL)?);
        while walk.step()? {}
        Ok(Self::new(walk.at, name.to_owned()))
    }
}

/// Handling of a directory on the path that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MissingDirectory {
    Create,
    Fail,
}

/// A walk along a path, at one of its directories.
struct PathWalk {
    at: OpenDirectory,
    /// Path of that directory, for messages.
    shown: PathBuf,
    /// Names yet to be entered, the next one last.
    left: Vec<OsString>,
    links: u32,
    missing: MissingDirectory,
    /// True if other users can move an entered directory elsewhere, so that `..` is not reliable.
    is_adrift: bool,
}

impl PathWalk {
    fn from_root(missing: MissingDirectory) -> io::Result<Self> {
        Ok(Self {
            at: OpenDirectory::root()?,
            shown: PathBuf::from("/"),
            left: Vec::new(),
            links: 0,
            missing,
            is_adrift: false,
        })
    }

    /// Inserts the names of `path` before the remaining ones.
    fn add(&mut self, path: &Path) {
        let names = path.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.left.extend(names);
    }

    /// Enters the next name; returns false if none is left.
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

    /// Creates and enters the directory `name` if `error` means that it is missing.
    fn make(&self, name: &OsStr, error: io::Error) -> io::Result<OpenDirectory> {
        if error.kind() != io::ErrorKind::NotFound || self.missing == MissingDirectory::Fail {
            return Err(error);
        }
        match mkdirat(&self.at, name, DIRECTORY_MODE) {
            // If another process created it first, `enter` checks that it is a directory.
            Ok(()) | Err(Errno::EXIST) => self.at.enter(name),
            Err(error) => Err(error.into()),
        }
    }

    fn go(&mut self, next: OpenDirectory, name: &OsStr) {
        if name == ".." {
            self.shown.pop();
        } else {
            self.shown.push(name);
            self.is_adrift |= self.at.entries_can_be_moved();
        }
        self.at = next;
    }

    /// Follows `name` if `error` means that it may be a link, and it is one.
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
            *self = Self { left, links, ..Self::from_root(self.missing)? };
        }
        self.add(Path::new(&target));
        Ok(())
    }
}
