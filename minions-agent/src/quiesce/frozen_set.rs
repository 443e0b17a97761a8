//! Open mount points, and their freeze and thaw.
#![expect(unsafe_code, reason = "the requests FIFREEZE and FITHAW have no safe wrapper")]

use super::mounts::FreezableMount;
use crate::error_chain;
use rustix::fs::{Mode, OFlags, open, syncfs};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, ioctl, opcode};
use std::ffi::c_int;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Requests of linux/fs.h.
const FIFREEZE: Opcode = opcode::read_write::<c_int>(b'X', 119);
const FITHAW: Opcode = opcode::read_write::<c_int>(b'X', 120);

/// Most file systems of a guest that are frozen: the kernel passes at most 253 descriptors in
/// one message, and the number of one is a byte of the keeper's protocol.
pub(super) const MAX_FROZEN: usize = 120;

/// File systems to sync and to freeze, opened before the first freeze: a thaw then needs no path, which may have to be
/// read from a frozen file system.
///
/// Dropping it thaws all that is frozen.
#[derive(Debug)]
pub(super) struct FrozenSet {
    members: Vec<FrozenMember>,
    /// File systems that cannot be opened, because other mounts hide them or a program of the guest serves them.
    unopened: Vec<FreezableMount>,
    /// True from the first thaw on: a freeze that was in progress then must be undone.
    over: AtomicBool,
    /// Number of the file system that is being frozen or synced.
    current: AtomicUsize,
}

#[derive(Debug)]
struct FrozenMember {
    mount: FreezableMount,
    fd: OwnedFd,
    frozen: AtomicBool,
}

/// Failure of one file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FreezeError {
    #[error("cannot open the mount point {mount_point}")]
    Open { mount_point: String, source: Errno },
    #[error("cannot sync {mount_point} ({fs_type})")]
    Sync { mount_point: String, fs_type: String, source: Errno },
    #[error("cannot freeze {mount_point} ({fs_type})")]
    Freeze { mount_point: String, fs_type: String, source: Errno },
    #[error("the quiesce ended during the freeze of {mount_point}")]
    Over { mount_point: String },
}

impl FreezeError {
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Open { source, .. } | Self::Sync { source, .. } | Self::Freeze { source, .. } => {
                Some(source.raw_os_error())
            }
            Self::Over { .. } => None,
        }
    }
}

/// State of a file system, for the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FreezeState {
    Thawed,
    /// The freeze has begun, and may never end.
    Freezing,
    Frozen,
}

impl FrozenSet {
    /// Opens the mount points. `opening` is called with each before it is opened. Blocks, possibly for long.
    ///
    /// # Errors
    ///
    /// A mount point cannot be opened, although it is not hidden by another mount.
    pub(super) fn open(
        mounts: Vec<FreezableMount>,
        mut unopened: Vec<FreezableMount>,
        mut opening: impl FnMut(&FreezableMount),
    ) -> Result<Self, FreezeError> {
        let mut members = Vec::new();
        for mount in mounts {
            opening(&mount);
            match open_mount(&mount)? {
                Some((mount_point, fd)) => {
                    let mount = FreezableMount { mount_points: vec![mount_point], ..mount };
                    members.push(FrozenMember { mount, fd, frozen: AtomicBool::new(false) });
                }
                None => unopened.push(mount),
            }
        }
        let (over, current) = (AtomicBool::new(false), AtomicUsize::new(0));
        Ok(Self { members, unopened, over, current })
    }

    /// Returns the open mount points in the order of the freeze.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.members.iter().map(|member| member.fd.as_fd()).collect()
    }

    /// Writes the file systems to their disks, until the quiesce is over. Others, such as those of a network, are not
    /// synced: their servers may not respond. Blocks, possibly for long.
    pub(super) fn sync(&self) -> Result<(), FreezeError> {
        for (number, FrozenMember { mount, fd, .. }) in self.members.iter().enumerate() {
            self.current.store(number, Ordering::SeqCst);
            if self.is_over() {
                return Err(FreezeError::Over { mount_point: shown(mount) });
            }
            syncfs(fd).map_err(|source| {
                let (mount_point, fs_type) = (shown(mount), mount.fs_type.clone());
                FreezeError::Sync { mount_point, fs_type, source }
            })?;
        }
        Ok(())
    }

    /// Freezes all file systems, and skips those that cannot be frozen. `mark` is called with the number of a file
    /// system and its state before and after its freeze.
    ///
    /// Blocks, possibly for long: a freeze waits for writes in progress.
    ///
    /// # Errors
    ///
    /// The first failure. The caller must then [thaw](Self::thaw) the others.
    pub(super) fn freeze(
        &self,
        mut mark: impl FnMut(usize, FreezeState),
    ) -> Result<(), FreezeError> {
        for (number, member) in self.members.iter().enumerate() {
            self.current.store(number, Ordering::SeqCst);
            let mount_point = || shown(&member.mount);
            if self.is_over() {
                return Err(FreezeError::Over { mount_point: mount_point() });
            }
            mark(number, FreezeState::Freezing);
            let frozen = freeze(member.fd.as_fd());
            member.frozen.store(frozen.is_ok(), Ordering::SeqCst);
            let state = if frozen.is_ok() { FreezeState::Frozen } else { FreezeState::Thawed };
            mark(number, state);
            match frozen {
                // The lease may have ended while the kernel was freezing.
                Ok(()) if self.is_over() => {
                    return Err(FreezeError::Over { mount_point: mount_point() });
                }
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(source) => {
                    let fs_type = member.mount.fs_type.clone();
                    return Err(FreezeError::Freeze {
                        mount_point: mount_point(),
                        fs_type,
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the file system that is being frozen or synced, with its type.
    pub(super) fn current(&self) -> String {
        let member = self.members.get(self.current.load(Ordering::SeqCst));
        member.map(|FrozenMember { mount, .. }| named(mount)).unwrap_or_default()
    }

    /// Returns the file systems that are frozen, and those that are not.
    pub(super) fn divided(&self) -> (Vec<&FreezableMount>, Vec<&FreezableMount>) {
        let (frozen, others): (Vec<_>, Vec<_>) =
            self.members.iter().partition(|member| member.frozen.load(Ordering::SeqCst));
        let others = others.into_iter().map(|member| &member.mount);
        (
            frozen.into_iter().map(|member| &member.mount).collect(),
            others.chain(&self.unopened).collect(),
        )
    }

    /// Thaws all file systems that are frozen, the last one first. Later freezes are undone. Returns those that another
    /// process had thawed before.
    ///
    /// Starts no process and writes no byte.
    pub(super) fn thaw(&self) -> Vec<&FreezableMount> {
        self.over.store(true, Ordering::SeqCst);
        let mut thawed_before = Vec::new();
        for member in self.members.iter().rev() {
            if !member.frozen.swap(false, Ordering::SeqCst) {
                continue;
            }
            match thaw(member.fd.as_fd()) {
                Ok(()) => {}
                // It is not frozen.
                Err(Errno::INVAL) => thawed_before.push(&member.mount),
                // The kernel reports errors of the disk in this way; dropping the set is another attempt.
                Err(error) => {
                    member.frozen.store(true, Ordering::SeqCst);
                    tracing::warn!(%error, mount = shown(&member.mount), "cannot thaw");
                }
            }
        }
        thawed_before
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

impl Drop for FrozenSet {
    fn drop(&mut self) {
        self.thaw();
    }
}

fn shown(mount: &FreezableMount) -> String {
    mount.mount_point().display().to_string()
}

/// Returns the mount point with the type of its file system.
pub(super) fn named(mount: &FreezableMount) -> String {
    format!("{} ({})", shown(mount), mount.fs_type)
}

fn freeze(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the kernel ignores the argument of FIFREEZE.
    unsafe { ioctl(mount, IntegerSetter::<FIFREEZE>::new_usize(0)) }
}

/// Thaws a file system, if it is frozen, unless `abandoned` returns true when it is open.
pub(super) fn thaw_mount(mount: &FreezableMount, abandoned: impl Fn() -> bool) {
    match open_mount(mount) {
        Ok(Some((_, fd))) if !abandoned() => match thaw(fd.as_fd()) {
            Ok(()) => tracing::warn!(mount = shown(mount), "thawed"),
            Err(Errno::INVAL) => {}
            Err(error) => tracing::warn!(%error, mount = shown(mount), "cannot thaw"),
        },
        Ok(_) => {}
        Err(error) => tracing::warn!(error = error_chain(&error), "cannot thaw"),
    }
}

/// Opens a mount point of the file system; `None` if other mounts hide all of them.
fn open_mount(mount: &FreezableMount) -> Result<Option<(PathBuf, OwnedFd)>, FreezeError> {
    // A file may also be a mount point. Opening a named pipe must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut failure = None;
    for mount_point in &mount.mount_points {
        match open(mount_point, flags, Mode::empty()) {
            Ok(fd) => {
                if mount_of(&fd).and_then(|id| mount.devices.get(&id)) == Some(&mount.device) {
                    return Ok(Some((mount_point.clone(), fd)));
                }
            }
            // Another mount hides the directory above the mount point.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(source) => {
                let mount_point = mount_point.display().to_string();
                failure = Some(FreezeError::Open { mount_point, source });
            }
        }
    }
    failure.map_or(Ok(None), Err)
}

/// Returns the id of the mount in which a file was opened (proc(5), `fdinfo`).
fn mount_of(fd: &OwnedFd) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Thaws a file system. `INVAL` means that it is not frozen.
pub(super) fn thaw(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the kernel ignores the argument of FITHAW.
    unsafe { ioctl(mount, IntegerSetter::<FITHAW>::new_usize(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo;
    use std::path::Path;
    use std::sync::Arc;

    /// Returns the root file system, with these mount points.
    fn root(mount_points: &[&str]) -> FreezableMount {
        let mounts = mountinfo::read().unwrap();
        let root = mounts.iter().rfind(|mount| mount.mount_point == Path::new("/")).unwrap();
        FreezableMount {
            mount_points: mount_points.iter().map(PathBuf::from).collect(),
            fs_type: root.fs_type.clone(),
            device: root.device.clone(),
            devices: Arc::new(
                mounts.iter().map(|mount| (mount.id, mount.device.clone())).collect(),
            ),
        }
    }

    #[test]
    fn a_hidden_file_system_is_listed_as_not_frozen_and_the_one_that_hides_it_is_not_opened() {
        // As if the root file system had been mounted there before.
        let hidden = root(&["/proc", "/proc/nonexistent"]);
        let visible = root(&["/proc", "/"]);
        let mut opening = Vec::new();
        let set = FrozenSet::open(vec![hidden.clone(), visible], Vec::new(), |mount| {
            opening.push(mount.mount_points.len());
        });
        let set = set.unwrap();
        assert_eq!(opening, [2, 2]);
        assert_eq!(set.descriptors().len(), 1);
        let (frozen, others) = set.divided();
        let others: Vec<_> = others.iter().map(|mount| mount.mount_point()).collect();
        assert_eq!((frozen.len(), others), (0, vec![Path::new("/"), Path::new("/proc")]));
        set.sync().unwrap();
    }

    #[test]
    fn a_sync_ends_after_the_file_system_at_hand_when_the_quiesce_is_over() {
        let set = FrozenSet::open(vec![root(&["/"])], Vec::new(), |_| {}).unwrap();
        assert!(set.thaw().is_empty());
        assert!(matches!(set.sync(), Err(FreezeError::Over { .. })));
    }
}
