//! Trust in the directory of sockets.
//!
//! minionsd identifies a VM by the name of its socket. So only trusted users may create files in the directory or
//! replace the directory itself. Each directory on the path must belong to a trusted user and be writable by
//! trusted users and groups only. Directories above the last one may be world-writable if they are sticky, as
//! `/tmp` is: then only the owner of an entry can rename it.

use crate::config::{Config, SocketOwner};
use nix::unistd::Group;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Limit of symbolic links on the way to the directory; the kernel has the same limit.
const MAX_LINKS: usize = 40;

/// Users and groups that may write to the directory.
#[derive(Debug, Clone)]
pub(crate) struct TrustedOwners {
    users: Vec<u32>,
    groups: Vec<u32>,
}

/// Reason why a directory is not trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Distrust {
    /// The directory, or one above it, is unreadable. It may not exist yet.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// Directory or link that is unreadable.
        path: PathBuf,
        /// Error of the system call.
        source: io::Error,
    },
    /// The owner is not trusted, but could create a socket with the name of any VM.
    #[error(
        "{} belongs to user {uid}, who could take the place of any VM; make root \
         the owner (chown root), or list the user in `socket_owners`",
        .path.display()
    )]
    Owner {
        /// Directory or link that belongs to the user.
        path: PathBuf,
        /// User id of the owner.
        uid: u32,
    },
    /// A group that is not trusted has write permission.
    #[error(
        "{} is writable by group {gid}, whose members could take the place of any VM; remove \
         that permission (chmod g-w), or list the group in `socket_owners` (\":{gid}\")",
        .path.display()
    )]
    Group {
        /// Directory that the group can write to.
        path: PathBuf,
        /// Group id of the directory.
        gid: u32,
    },
    /// All users have write permission.
    #[error("{} is writable by all users; remove that permission (chmod o-w)", .0.display())]
    Others(PathBuf),
}

impl Distrust {
    /// Returns the reason as a metric label.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Owner { .. } => "owner",
            Self::Group { .. } => "group_writable",
            Self::Others(_) => "world_writable",
        }
    }
}

impl TrustedOwners {
    /// Returns the trusted users and groups: root, the daemon's own user and group, the operators' group, and those
    /// in `socket_owners`.
    pub(crate) fn of(config: &Config) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let mut trusted = Self { users: vec![0, uid.as_raw()], groups: vec![0, gid.as_raw()] };
        if let Ok(Some(operators)) = Group::from_name(&config.operator_group) {
            trusted.groups.push(operators.gid.as_raw());
        }
        for owner in &config.socket_owners {
            match owner {
                SocketOwner::User(uid) => trusted.users.push(*uid),
                SocketOwner::Group(gid) => trusted.groups.push(*gid),
            }
        }
        trusted
    }

    /// Checks `dir` and all directories and links on the way to it.
    ///
    /// # Errors
    ///
    /// Returns the first directory or link that is not trusted.
    pub(crate) fn check(&self, dir: &Path) -> Result<(), Distrust> {
        let absolute = std::path::absolute(dir).map_err(|source| unreadable(dir, source))?;
        let mut rest: VecDeque<OsString> = names(&absolute);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        self.check_directory(&at, &look(&at)?, rest.is_empty())?;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let path = at.join(name);
            let metadata = look(&path)?;
            if !metadata.is_symlink() {
                self.check_directory(&path, &metadata, rest.is_empty())?;
                at = path;
                continue;
            }
            self.check_owner(&path, &metadata)?;
            links += 1;
            if links > MAX_LINKS {
                let source = io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error());
                return Err(unreadable(&path, source));
            }
            let target = fs::read_link(&path).map_err(|source| unreadable(&path, source))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            names(&target).into_iter().rev().for_each(|name| rest.push_front(name));
        }
        Ok(())
    }

    fn check_owner(&self, path: &Path, metadata: &Metadata) -> Result<(), Distrust> {
        let uid = metadata.uid();
        if self.users.contains(&uid) {
            return Ok(());
        }
        Err(Distrust::Owner { path: path.to_owned(), uid })
    }

    /// Checks one directory. `is_last` marks the directory of sockets itself, where the sticky bit does not help: it
    /// does not keep other users from creating files.
    fn check_directory(
        &self,
        path: &Path,
        metadata: &Metadata,
        is_last: bool,
    ) -> Result<(), Distrust> {
        self.check_owner(path, metadata)?;
        let mode = metadata.mode();
        if mode & STICKY != 0 && !is_last {
            return Ok(());
        }
        if mode & WRITABLE_BY_OTHERS != 0 {
            return Err(Distrust::Others(path.to_owned()));
        }
        let gid = metadata.gid();
        if mode & WRITABLE_BY_GROUP != 0 && !self.groups.contains(&gid) {
            return Err(Distrust::Group { path: path.to_owned(), gid });
        }
        Ok(())
    }
}

/// Returns the names in a path, including `..`.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

fn look(path: &Path) -> Result<Metadata, Distrust> {
    fs::symlink_metadata(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> Distrust {
    Distrust::Unreadable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    const NOBODY: u32 = 65534;

    fn trusted() -> TrustedOwners {
        let own = rustix::process::geteuid().as_raw();
        TrustedOwners { users: vec![0, own], groups: vec![0] }
    }

    /// Creates a directory below a temporary one, which is below the sticky `/tmp`.
    fn dirs() -> (tempfile::TempDir, PathBuf) {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("vms");
        fs::create_dir(&dir).unwrap();
        set_mode(above.path(), 0o755);
        set_mode(&dir, 0o755);
        (above, dir)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Changes the owner of a file, which only root can do.
    fn give(path: &Path, uid: Option<u32>, gid: Option<u32>) {
        std::os::unix::fs::lchown(path, uid, gid).expect("this test needs root: run it with sudo");
    }

    #[test]
    fn a_directory_of_the_daemons_user_is_trusted_also_below_a_sticky_one() {
        let (_above, dir) = dirs();
        trusted().check(&dir).unwrap();
        trusted().check(&dir.join("../vms")).unwrap();
    }

    #[test]
    fn a_directory_of_another_user_is_trusted_only_if_the_user_is_listed() {
        let (above, dir) = dirs();
        for path in [&dir, above.path()] {
            give(path, Some(NOBODY), None);
            let refused = trusted().check(&dir).unwrap_err();
            assert!(matches!(&refused, Distrust::Owner { path: of, uid: NOBODY } if of == path));
            let mut named = trusted();
            named.users.push(NOBODY);
            named.check(&dir).unwrap();
            give(path, Some(0), None);
        }
    }

    #[test]
    fn a_world_writable_directory_is_not_trusted() {
        let (above, dir) = dirs();
        for mode in [0o777, 0o1777, 0o757] {
            set_mode(&dir, mode);
            assert!(matches!(trusted().check(&dir), Err(Distrust::Others(path)) if path == dir));
        }
        set_mode(&dir, 0o755);
        set_mode(above.path(), 0o777);
        assert!(
            matches!(trusted().check(&dir), Err(Distrust::Others(path)) if path == above.path())
        );
        set_mode(above.path(), 0o1777);
        trusted().check(&dir).unwrap();
    }

    #[test]
    fn a_group_writable_directory_is_trusted_only_if_the_group_is() {
        let (above, dir) = dirs();
        for path in [&dir, above.path()] {
            chown(path, None, Some(4_000)).expect("this test needs root: run it with sudo");
            set_mode(path, 0o775);
            let refused = trusted().check(&dir).unwrap_err();
            assert!(matches!(&refused, Distrust::Group { path: of, gid: 4_000 } if of == path));
            let mut named = trusted();
            named.groups.push(4_000);
            named.check(&dir).unwrap();
            set_mode(path, 0o755);
        }
    }

    #[test]
    fn links_on_the_path_and_their_targets_are_checked() {
        let (above, dir) = dirs();
        let (other, foreign) = dirs();
        give(other.path(), Some(NOBODY), None);
        let link = above.path().join("link");
        symlink(&dir, &link).unwrap();
        trusted().check(&link).unwrap();
        give(&link, Some(NOBODY), None);
        assert!(
            matches!(trusted().check(&link), Err(Distrust::Owner { path, .. }) if path == link)
        );
        fs::remove_file(&link).unwrap();
        symlink(&foreign, &link).unwrap();
        let refused = trusted().check(&link);
        assert!(matches!(refused, Err(Distrust::Owner { path, .. }) if path == other.path()));
        fs::remove_file(&link).unwrap();
        symlink("link", &link).unwrap();
        assert!(matches!(trusted().check(&link), Err(Distrust::Unreadable { .. })));
    }
}
