//! Control groups (cgroup v2): the mount point, the agent's own group, and the controllers in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Mount points of cgroup v2: the usual one, and the one on systems that also mount version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Controllers that limit programs, or give the agent priority over programs.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The tree of control groups, as this process sees it.
#[derive(Debug, Clone)]
pub(crate) struct CgroupHierarchy {
    mount: PathBuf,
    /// Path of this process's group relative to the mount; empty for the root.
    own: PathBuf,
}

impl CgroupHierarchy {
    /// Finds the tree; `None` in a guest without cgroup v2.
    pub(crate) fn find() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let mounts = MOUNTS.iter().map(Path::new);
        let mount = mounts.into_iter().find(|dir| dir.join("cgroup.controllers").exists())?;
        Some(Self { mount: mount.to_owned(), own: own.into() })
    }

    /// Returns the root of the tree.
    pub(crate) fn root(&self) -> &Path {
        &self.mount
    }

    /// Returns the group of this process, or `None` for the root.
    pub(crate) fn own(&self) -> Option<PathBuf> {
        let is_root = self.own.as_os_str().is_empty();
        (!is_root).then(|| self.mount.join(&self.own))
    }
}

/// Makes a group, unless it exists.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Enables controllers for the groups directly below `dir`. Each is a separate write, because a kernel that lacks one
/// refuses a whole list. Callers see from the files in a group which controllers it has.
pub(crate) fn enable_controllers(dir: &Path) {
    for controller in CONTROLLERS {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}
