//! Control groups (cgroup v2): where they are mounted, which one is ours, and which controllers count.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where it is mounted everywhere; the second one where version 1 is mounted as well.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// What the agent and its programs are told apart by, and what programs are limited by.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The tree of control groups, as this process sees it.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    mount: PathBuf,
    /// Below the mount; empty in the tree's root.
    own: PathBuf,
}

impl Hierarchy {
    /// `None` in a guest without cgroup v2.
    pub(crate) fn find() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let mounts = MOUNTS.iter().map(Path::new);
        let mount = mounts.into_iter().find(|dir| dir.join("cgroup.controllers").exists())?;
        Some(Self { mount: mount.to_owned(), own: own.into() })
    }

    /// The tree's root.
    pub(crate) fn root(&self) -> &Path {
        &self.mount
    }

    /// This process's group, unless that is the root.
    pub(crate) fn own(&self) -> Option<PathBuf> {
        let is_root = self.own.as_os_str().is_empty();
        (!is_root).then(|| self.mount.join(&self.own))
    }
}

/// Makes a group, which may be there already.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Lets groups directly below `dir` have controllers. One by one, since a kernel may lack any of them and
/// then refuses them all; which ones there are then shows by their files.
pub(crate) fn enable_controllers(dir: &Path) {
    for controller in CONTROLLERS {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}
