//! The mounted filesystems.

use minions_proto::message::Filesystem;
use procfs::process::{MountInfo, Process};
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A filesystem whose server is gone hangs whoever looks at it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the protocol has room for. A container host has hundreds.
const MAX_LISTED: usize = 1024;

/// In memory, or in no place at all. As the root filesystem they count: it is all there is.
const VIRTUAL: &[&str] = &["devtmpfs", "hugetlbfs", "ramfs", "tmpfs", "efivarfs"];

/// Looks at them, once at a time: if one look hangs, the next one doesn't try.
#[derive(Debug)]
pub(super) struct Disks {
    look: Arc<Semaphore>,
}

impl Default for Disks {
    fn default() -> Self {
        Self { look: Arc::new(Semaphore::new(1)) }
    }
}

impl Disks {
    /// Every filesystem that has blocks of its own; `None` if one of them hangs.
    pub(super) async fn list(&self) -> Option<Vec<Filesystem>> {
        let look = timeout(PATIENCE, Arc::clone(&self.look).acquire_owned()).await.ok()?.ok()?;
        let listed = tokio::task::spawn_blocking(move || {
            let _look = look;
            list()
        });
        timeout(PATIENCE, listed).await.ok()?.ok()?
    }
}

fn list() -> Option<Vec<Filesystem>> {
    let mounts = Process::myself().and_then(|own| own.mountinfo()).ok()?;
    // The same device twice is a bind mount; the first mount is the one that people know.
    let mut seen = HashSet::new();
    let mut listed: Vec<_> = mounts
        .into_iter()
        .filter(|mount| mount.mount_point.as_os_str() == "/" || !is_virtual(mount))
        .filter_map(|mount| Some((mount.majmin.clone(), filesystem(&mount)?)))
        .filter(|(device, _)| seen.insert(device.clone()))
        .map(|(_, filesystem)| filesystem)
        .collect();
    listed.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    listed.truncate(MAX_LISTED);
    Some(listed)
}

fn is_virtual(mount: &MountInfo) -> bool {
    VIRTUAL.contains(&mount.fs_type.as_str())
}

fn filesystem(mount: &MountInfo) -> Option<Filesystem> {
    let figures = statvfs(&mount.mount_point).ok()?;
    if figures.f_blocks == 0 {
        return None;
    }
    let bytes = |blocks: u64| blocks.saturating_mul(figures.f_frsize);
    Some(Filesystem {
        mount_point: mount.mount_point.display().to_string(),
        fs_type: mount.fs_type.clone(),
        source: mount.mount_source.clone().unwrap_or_default(),
        total_bytes: bytes(figures.f_blocks),
        used_bytes: bytes(figures.f_blocks.saturating_sub(figures.f_bfree)),
        available_bytes: bytes(figures.f_bavail),
        read_only: figures.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}
