//! Mounted filesystems and their usage.

use crate::mountinfo::{self, MountEntry};
use minions_proto::message::Filesystem;
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Limit of the protocol. A container host has hundreds of filesystems.
const MAX_LISTED: usize = 1024;

/// Filesystem types without storage of their own. They are only listed if one of them is the root filesystem.
const VIRTUAL: &[&str] = &["autofs", "devtmpfs", "hugetlbfs", "ramfs", "tmpfs", "efivarfs"];

/// Lists filesystems, one listing at a time: while one hangs, no further one is started.
#[derive(Debug)]
pub(crate) struct DiskLister {
    look: Arc<Semaphore>,
}

impl Default for DiskLister {
    fn default() -> Self {
        Self { look: Arc::new(Semaphore::new(1)) }
    }
}

impl DiskLister {
    /// Returns all filesystems that have blocks; `None` if that takes longer than `patience`: statvfs(2) hangs on a filesystem
    /// whose server is gone.
    pub(super) async fn list(&self, patience: Duration) -> Option<Vec<Filesystem>> {
        let listed = async {
            let look = Arc::clone(&self.look).acquire_owned().await.ok()?;
            let listed = crate::task::spawn_blocking(move || {
                let _look = look;
                list()
            });
            listed.await.ok()?
        };
        timeout(patience, listed).await.ok()?
    }
}

fn list() -> Option<Vec<Filesystem>> {
    let mounts = mountinfo::read().ok()?;
    // A second mount of the same device is a bind mount; the first one is the usual path.
    let mut seen = HashSet::new();
    let mut listed: Vec<_> = mounts
        .into_iter()
        .filter(|mount| mount.mount_point.as_os_str() == "/" || !is_virtual(mount))
        .filter_map(|mount| Some((mount.device.clone(), filesystem(&mount)?)))
        .filter(|(device, _)| seen.insert(device.clone()))
        .map(|(_, filesystem)| filesystem)
        .collect();
    listed.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    listed.truncate(MAX_LISTED);
    Some(listed)
}

fn is_virtual(mount: &MountEntry) -> bool {
    VIRTUAL.contains(&mount.fs_type.as_str())
}

fn filesystem(mount: &MountEntry) -> Option<Filesystem> {
    let figures = statvfs(&mount.mount_point).ok()?;
    if figures.f_blocks == 0 {
        return None;
    }
    // Filesystems that create inodes as needed, such as btrfs, report none.
    let has_inodes = figures.f_files > 0;
    let bytes = |blocks: u64| blocks.saturating_mul(figures.f_frsize);
    Some(Filesystem {
        mount_point: mount.mount_point.display().to_string(),
        fs_type: mount.fs_type.clone(),
        source: mount.source.clone(),
        total_bytes: bytes(figures.f_blocks),
        used_bytes: bytes(figures.f_blocks.saturating_sub(figures.f_bfree)),
        available_bytes: bytes(figures.f_bavail),
        read_only: figures.f_flag.contains(StatVfsMountFlags::RDONLY),
        inodes_total: has_inodes.then_some(figures.f_files),
        inodes_used: has_inodes.then(|| figures.f_files.saturating_sub(figures.f_ffree)),
    })
}
