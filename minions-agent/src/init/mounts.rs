//! Kernel file systems, mounted at boot and unmounted at the end.

use super::console::{console, report};
use rustix::fs::symlink;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::ffi::CString;
use std::fs;

/// Mount point, type, flags and data of each mount. Ordered: later ones can be inside earlier ones.
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

/// Symbolic links in `/dev` that shells and programs expect: target and link.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// File system types that a kernel may be built without.
const OPTIONAL: [&str; 2] = ["cgroup2", "securityfs"];

/// Mounts everything that is not mounted yet.
pub(super) fn mount_all() {
    for (place, kind, flags, data) in MOUNTS {
        // Fails on a read-only root, whose image has the directory; otherwise the mount reports the error.
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
        // The link may exist already.
        let _ = symlink(target, link);
    }
}

/// Leaves no file system with unwritten data: unmounts what can be unmounted, and remounts the root read-only.
pub(super) fn unmount_all() {
    rustix::fs::sync();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        // The root is remounted below; kernel file systems are still needed and have no data to lose.
        if place == "/" || MOUNTS.iter().any(|(ours, ..)| *ours == place) {
            continue;
        }
        let unmounted = unmount(unescaped(place).as_str(), UnmountFlags::empty());
        report(&format!("unmount {place}"), unmounted);
    }
    // Fails for the root of an initial ramdisk, which has nothing to lose.
    let _ = mount_remount("/", MountFlags::RDONLY, c"");
    rustix::fs::sync();
}

/// Replaces the kernel's escapes in a mount point, such as `\040` for a space.
fn unescaped(place: &str) -> String {
    let blanks = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    blanks.iter().fold(place.to_owned(), |place, (code, blank)| place.replace(code, blank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_may_contain_spaces() {
        assert_eq!(unescaped("/mnt/a\\040b"), "/mnt/a b");
        assert_eq!(unescaped("/mnt/a"), "/mnt/a");
    }

    #[test]
    fn a_file_system_is_mounted_after_the_one_that_contains_it() {
        for (at, (place, ..)) in MOUNTS.iter().enumerate() {
            let outer = MOUNTS.iter().position(|(other, ..)| {
                place.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
            });
            assert!(outer.is_none_or(|outer| outer < at), "{place}");
        }
    }
}
