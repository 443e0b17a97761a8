//! The file systems that come from the kernel.

use super::{console, report};
use rustix::fs::symlink;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::ffi::CString;
use std::fs;

/// Where, what, and how it is mounted. In this order: later ones are inside earlier ones.
const MOUNTS: [(&str, &str, MountFlags, &str); 9] = [
    ("/proc", "proc", HARMLESS, ""),
    ("/sys", "sysfs", HARMLESS, ""),
    ("/dev", "devtmpfs", MountFlags::NOSUID, "mode=0755"),
    // Group 5 is `tty` everywhere.
    ("/dev/pts", "devpts", NO_DEVICES_HERE, "gid=5,mode=620,ptmxmode=666"),
    ("/dev/shm", "tmpfs", SCRATCH, "mode=1777"),
    ("/run", "tmpfs", SCRATCH, "mode=0755"),
    ("/tmp", "tmpfs", SCRATCH, "mode=1777"),
    ("/sys/fs/cgroup", "cgroup2", HARMLESS, ""),
    ("/sys/kernel/security", "securityfs", HARMLESS, ""),
];

const SCRATCH: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const HARMLESS: MountFlags = SCRATCH.union(MountFlags::NOEXEC);
const NO_DEVICES_HERE: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// What shells and programs expect beside the devices.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// What a kernel may be built without.
const OPTIONAL: [&str; 2] = ["cgroup2", "securityfs"];

/// Mounts what isn't mounted yet.
pub(super) fn mount_all() {
    for (place, kind, flags, data) in MOUNTS {
        // Fails on a read-only root, where the directory is there already; the mount tells.
        let _ = fs::create_dir_all(place);
        let Ok(data) = CString::new(data) else { continue };
        match mount(kind, place, kind, flags, &*data) {
            // The kernel itself mounts devtmpfs on a disk's /dev.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(_) if OPTIONAL.contains(&kind) => {}
            Err(errno) => console(format_args!("mount {place}: {errno}")),
        }
    }
    for (target, link) in LINKS {
        // They may be there.
        let _ = symlink(target, link);
    }
}

/// Leaves no file system with unwritten data: unmounts what can be, and makes the root read-only.
pub(super) fn unmount_all() {
    rustix::fs::sync();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        // What the end itself still needs, and what has nothing to lose.
        if place == "/" || MOUNTS.iter().any(|(ours, ..)| *ours == place) {
            continue;
        }
        report(place, unmount(unescaped(place).as_str(), UnmountFlags::empty()));
    }
    // An initial ramdisk's root can't be, and needn't be.
    let _ = mount_remount("/", MountFlags::RDONLY, c"");
    rustix::fs::sync();
}

/// The kernel writes blanks in names as `\040`.
fn unescaped(place: &str) -> String {
    let blanks = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    blanks.iter().fold(place.to_owned(), |place, (code, blank)| place.replace(code, blank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_points_name_may_have_blanks() {
        assert_eq!(unescaped("/mnt/a\\040b"), "/mnt/a b");
        assert_eq!(unescaped("/mnt/a"), "/mnt/a");
    }

    #[test]
    fn a_file_system_is_mounted_after_the_one_it_is_in() {
        for (at, (place, ..)) in MOUNTS.iter().enumerate() {
            let outer = MOUNTS.iter().position(|(other, ..)| {
                place.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
            });
            assert!(outer.is_none_or(|outer| outer < at), "{place}");
        }
    }
}
