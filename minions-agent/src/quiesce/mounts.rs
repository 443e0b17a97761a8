//! Selection of the file systems to freeze.
//!
//! A file system is frozen as a whole, so each is listed once, however often it is mounted. The order is the reverse of
//! the order in which they were mounted: a mount point is mounted before what is mounted below it, and the file system
//! that holds the file of a loop device before the one on the loop device. In the other order, the freeze of the second
//! would wait for the first forever, because a freeze writes.

use minions_proto::message::FrozenFilesystem;
use procfs::ProcResult;
use procfs::process::{MountInfo, Process};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Types of file systems on block devices whose device number is not that of a block device.
const MULTIPLE_DEVICES: &[&str] = &["bcachefs", "btrfs"];

/// File system to freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FreezableMount {
    pub(super) mount_point: PathBuf,
    pub(super) fs_type: String,
}

impl FreezableMount {
    pub(super) fn on_wire(&self) -> FrozenFilesystem {
        FrozenFilesystem {
            mount_point: self.mount_point.display().to_string(),
            fs_type: self.fs_type.clone(),
        }
    }
}

/// File systems of the guest, as far as a freeze is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GuestMounts {
    /// File systems to freeze, in the order of the freeze.
    pub(super) freezable: Vec<FreezableMount>,
    /// Type of the root file system.
    pub(super) root_type: String,
}

/// Reads the mounts of this process.
pub(super) fn read() -> ProcResult<GuestMounts> {
    let mounts = Process::myself()?.mountinfo()?;
    Ok(select(mounts.into_iter().collect(), is_block_device))
}

fn is_block_device(number: &str) -> bool {
    Path::new("/sys/dev/block").join(number).exists()
}

fn select(mounts: Vec<MountInfo>, is_block_device: impl Fn(&str) -> bool) -> GuestMounts {
    let root = mounts.iter().rfind(|mount| mount.mount_point == Path::new("/"));
    let root_type = root.map(|mount| mount.fs_type.clone()).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut freezable: Vec<_> = mounts
        .into_iter()
        .filter(|mount| is_on_devices(mount, &is_block_device) && !is_read_only(mount))
        .filter(|mount| seen.insert(mount.majmin.clone()))
        .map(|MountInfo { mount_point, fs_type, .. }| FreezableMount { mount_point, fs_type })
        .collect();
    freezable.reverse();
    GuestMounts { freezable, root_type }
}

fn is_on_devices(mount: &MountInfo, is_block_device: impl Fn(&str) -> bool) -> bool {
    let named = || mount.mount_source.as_deref().is_some_and(|source| source.starts_with("/dev/"));
    is_block_device(&mount.majmin)
        || (MULTIPLE_DEVICES.contains(&mount.fs_type.as_str()) && named())
}

/// Reports whether the file system itself is read-only. A read-only mount of a writable one does not count: it may also
/// be mounted writable.
fn is_read_only(mount: &MountInfo) -> bool {
    mount.super_options.contains_key("ro")
}

#[cfg(test)]
mod tests {
    use super::*;
    use procfs::FromRead;
    use procfs::process::MountInfos;

    fn selected(mountinfo: &str) -> (Vec<String>, String) {
        let mounts = MountInfos::from_read(mountinfo.as_bytes()).unwrap();
        let guest = select(mounts.into_iter().collect(), |number| !number.starts_with("0:"));
        let paths = guest.freezable.iter().map(|mount| mount.mount_point.display().to_string());
        (paths.collect(), guest.root_type)
    }

    #[test]
    fn writable_file_systems_on_devices_are_frozen_once_and_in_reverse_order() {
        let (paths, root) = selected(
            "1 0 254:0 / / rw,relatime - ext4 /dev/root rw\n\
             2 1 0:5 / /proc rw - proc proc rw\n\
             3 1 0:6 / /run rw - tmpfs tmpfs rw\n\
             4 1 254:1 / /srv/images rw - xfs /dev/vdb rw\n\
             5 1 7:0 / /data rw - ext4 /dev/loop0 rw\n\
             6 1 254:0 /home /mnt/home rw - ext4 /dev/root rw\n\
             7 1 254:2 / /cdrom ro - iso9660 /dev/sr0 ro\n\
             8 1 254:3 / /readable ro - ext4 /dev/vdc rw\n\
             9 1 0:40 / /pool rw - btrfs /dev/vdd rw,subvol=/\n\
             10 1 0:40 /other /pool/other rw - btrfs /dev/vdd rw,subvol=/other\n\
             11 1 0:41 / /net rw - nfs4 server:/export rw\n\
             12 1 0:42 / /layers rw - overlay overlay rw\n",
        );
        assert_eq!(paths, ["/pool", "/readable", "/data", "/srv/images", "/"]);
        assert_eq!(root, "ext4");
    }

    #[test]
    fn a_guest_in_memory_has_nothing_to_freeze_and_its_root_has_a_type() {
        let (paths, root) =
            selected("1 0 0:2 / / rw - rootfs rootfs rw\n2 1 0:5 / /proc rw - proc proc rw\n");
        assert_eq!((paths, root.as_str()), (Vec::new(), "rootfs"));
    }

    #[test]
    fn the_type_of_the_root_is_that_of_the_uppermost_mount() {
        let (_, root) =
            selected("1 0 0:2 / / rw - rootfs rootfs rw\n2 1 254:0 / / rw - ext4 /dev/vda rw\n");
        assert_eq!(root, "ext4");
    }
}
