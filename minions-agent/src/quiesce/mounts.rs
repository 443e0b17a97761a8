//! Selection of the file systems to freeze.
//!
//! A file system is frozen as a whole, so each is listed once, however often it is mounted. The order is the reverse of
//! the order in which they were mounted: a mount point is mounted before what is mounted below it, and the file system
//! that holds the file of a loop device before the one on the loop device. In the other order, the freeze of the second
//! would wait for the first forever, because a freeze writes.

use crate::mountinfo::{self, MountEntry};
use minions_proto::message::FrozenFilesystem;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Types of file systems on block devices whose device number is not that of a block device.
const MULTIPLE_DEVICES: &[&str] = &["bcachefs", "btrfs"];

/// Start of the types of file systems that a program of the guest serves. They cannot be frozen, and opening one may wait
/// for its program forever.
const SERVED_BY_PROGRAMS: &str = "fuse";

/// File system to freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FreezableMount {
    /// All mount points, the one that was mounted first in front. Some may be hidden by later mounts.
    pub(super) mount_points: Vec<PathBuf>,
    pub(super) fs_type: String,
    /// Device number, as `major:minor`.
    pub(super) device: String,
    /// Device number of each mount of the guest, by the id of the mount.
    pub(super) devices: Arc<HashMap<u64, String>>,
}

impl FreezableMount {
    pub(super) fn mount_point(&self) -> &Path {
        self.mount_points.first().map_or(Path::new(""), PathBuf::as_path)
    }

    pub(super) fn on_wire(&self) -> FrozenFilesystem {
        FrozenFilesystem {
            mount_point: self.mount_point().display().to_string(),
            fs_type: self.fs_type.clone(),
        }
    }
}

/// File systems of the guest, as far as a freeze is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GuestMounts {
    /// File systems to freeze, in the order of the freeze.
    pub(super) freezable: Vec<FreezableMount>,
    /// Writable file systems on block devices that must not even be opened.
    pub(super) served: Vec<FreezableMount>,
    /// Type of the root file system.
    pub(super) root_type: String,
}

/// Reads the mounts of this process.
pub(super) fn read() -> io::Result<GuestMounts> {
    let mounts = mountinfo::read()?;
    Ok(select(mounts, is_block_device))
}

fn is_block_device(number: &str) -> bool {
    Path::new("/sys/dev/block").join(number).exists()
}

fn select(mounts: Vec<MountEntry>, is_block_device: impl Fn(&str) -> bool) -> GuestMounts {
    let root = mounts.iter().rfind(|mount| mount.mount_point == Path::new("/"));
    let root_type = root.map(|mount| mount.fs_type.clone()).unwrap_or_default();
    let devices = mounts.iter().map(|mount| (mount.id, mount.device.clone())).collect();
    let devices = Arc::new(devices);
    let mut indices: HashMap<String, usize> = HashMap::new();
    let mut found: Vec<FreezableMount> = Vec::new();
    for mount in mounts {
        if !is_on_devices(&mount, &is_block_device) || mount.super_options.contains("ro") {
            continue;
        }
        let MountEntry { device, mount_point, fs_type, .. } = mount;
        match indices.entry(device.clone()) {
            Entry::Occupied(index) => found[*index.get()].mount_points.push(mount_point),
            Entry::Vacant(index) => {
                index.insert(found.len());
                let (mount_points, devices) = (vec![mount_point], Arc::clone(&devices));
                found.push(FreezableMount { mount_points, fs_type, device, devices });
            }
        }
    }
    found.reverse();
    let (served, freezable) =
        found.into_iter().partition(|mount| mount.fs_type.starts_with(SERVED_BY_PROGRAMS));
    GuestMounts { freezable, served, root_type }
}

/// A file system counts if it is writable itself: a read-only mount of it may not be its only one.
fn is_on_devices(mount: &MountEntry, is_block_device: impl Fn(&str) -> bool) -> bool {
    is_block_device(&mount.device)
        || (MULTIPLE_DEVICES.contains(&mount.fs_type.as_str()) && mount.source.starts_with("/dev/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(mountinfo: &str) -> (Vec<String>, String) {
        let guest = selection(mountinfo);
        let paths = guest.freezable.iter().map(|mount| mount.mount_point().display().to_string());
        (paths.collect(), guest.root_type)
    }

    fn selection(mountinfo: &str) -> GuestMounts {
        select(mountinfo::parse(mountinfo.as_bytes()), |number| !number.starts_with("0:"))
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

    #[test]
    fn all_mount_points_of_a_file_system_are_known_and_served_ones_are_apart() {
        let guest = selection(
            "1 0 254:0 / / rw - ext4 /dev/vda rw\n\
             2 1 254:0 /home /mnt/home rw - ext4 /dev/vda rw\n\
             3 1 254:1 / /usb rw - fuseblk /dev/vdb rw\n",
        );
        assert_eq!(guest.freezable[0].mount_points, ["/", "/mnt/home"].map(PathBuf::from));
        let served: Vec<_> = guest.served.iter().map(FreezableMount::on_wire).collect();
        assert_eq!(
            (served[0].mount_point.as_str(), served[0].fs_type.as_str()),
            ("/usb", "fuseblk")
        );
    }
}
