//! Open mount points, and their freeze and thaw.
#![expect(unsafe_code, reason = "the requests FIFREEZE and FITHAW have no safe wrapper")]

use super::mounts::FreezableMount;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, ioctl, opcode};
use std::ffi::c_int;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Requests of linux/fs.h.
const FIFREEZE: Opcode = opcode::read_write::<c_int>(b'X', 119);
const FITHAW: Opcode = opcode::read_write::<c_int>(b'X', 120);

/// Most file systems of a guest that are frozen: the number of one is a byte of the keeper's protocol, without its
/// highest bit, and the kernel passes at most 253 descriptors in one message.
pub(super) const MAX_FROZEN: usize = 120;

/// File systems to freeze, opened before the first freeze: a thaw then needs no path, which may have to be read from a
/// frozen file system.
///
/// Dropping it thaws all that is frozen.
#[derive(Debug)]
pub(super) struct FrozenSet {
    members: Vec<FrozenMember>,
    /// True from the first thaw on: a freeze that was in progress then must be undone.
    over: AtomicBool,
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
    #[error("cannot freeze {mount_point} ({fs_type})")]
    Freeze { mount_point: String, fs_type: String, source: Errno },
    #[error("the lease ended during the freeze of {mount_point}")]
    Over { mount_point: String },
}

impl FreezeError {
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Open { source, .. } | Self::Freeze { source, .. } => Some(source.raw_os_error()),
            Self::Over { .. } => None,
        }
    }
}

impl FrozenSet {
    pub(super) fn open(mounts: Vec<FreezableMount>) -> Result<Self, FreezeError> {
        let member = |mount: FreezableMount| match open_mount(&mount) {
            Ok(fd) => Ok(FrozenMember { mount, fd, frozen: AtomicBool::new(false) }),
            Err(source) => {
                let mount_point = mount.mount_point.display().to_string();
                Err(FreezeError::Open { mount_point, source })
            }
        };
        let members = mounts.into_iter().map(member).collect::<Result<_, _>>()?;
        Ok(Self { members, over: AtomicBool::new(false) })
    }

    /// Returns the open mount points in the order of the freeze.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.members.iter().map(|member| member.fd.as_fd()).collect()
    }

    /// Freezes all file systems, and skips those that cannot be frozen. `mark` is called with the number of a file
    /// system and true before its freeze, and with false if it is not frozen after all.
    ///
    /// Blocks, possibly for long: a freeze waits for writes in progress.
    ///
    /// # Errors
    ///
    /// The first failure. The caller must then [thaw](Self::thaw) the others.
    pub(super) fn freeze(&self, mut mark: impl FnMut(usize, bool)) -> Result<(), FreezeError> {
        for (number, member) in self.members.iter().enumerate() {
            let mount_point = || member.mount.mount_point.display().to_string();
            if self.is_over() {
                return Err(FreezeError::Over { mount_point: mount_point() });
            }
            mark(number, true);
            let frozen = freeze(member.fd.as_fd());
            member.frozen.store(frozen.is_ok(), Ordering::SeqCst);
            match frozen {
                // The lease may have ended while the kernel was freezing.
                Ok(()) if self.is_over() => {
                    return Err(FreezeError::Over { mount_point: mount_point() });
                }
                Ok(()) => {}
                Err(source) => {
                    mark(number, false);
                    if source != Errno::OPNOTSUPP {
                        let fs_type = member.mount.fs_type.clone();
                        return Err(FreezeError::Freeze {
                            mount_point: mount_point(),
                            fs_type,
                            source,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the file systems that are frozen, and those that are not.
    pub(super) fn divided(&self) -> (Vec<&FreezableMount>, Vec<&FreezableMount>) {
        let (frozen, others): (Vec<_>, Vec<_>) =
            self.members.iter().partition(|member| member.frozen.load(Ordering::SeqCst));
        (
            frozen.into_iter().map(|member| &member.mount).collect(),
            others.into_iter().map(|member| &member.mount).collect(),
        )
    }

    /// Thaws all file systems that are frozen, the last one first. Later freezes are undone.
    ///
    /// Starts no process and writes no byte.
    pub(super) fn thaw(&self) {
        self.over.store(true, Ordering::SeqCst);
        for member in self.members.iter().rev() {
            if member.frozen.swap(false, Ordering::SeqCst) {
                thaw(member.fd.as_fd());
            }
        }
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

fn freeze(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the kernel ignores the argument of FIFREEZE.
    unsafe { ioctl(mount, IntegerSetter::<FIFREEZE>::new_usize(0)) }
}

/// Thaws the file system at a mount point, if it is frozen.
pub(super) fn thaw_mount(mount: &FreezableMount) {
    match open_mount(mount) {
        Ok(fd) => thaw(fd.as_fd()),
        Err(error) => tracing::warn!(%error, mount = ?mount.mount_point, "cannot thaw"),
    }
}

fn open_mount(mount: &FreezableMount) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(&mount.mount_point, flags, Mode::empty())
}

/// Thaws a file system. A file system that is not frozen stays as it is, and so does one whose thaw fails: the kernel
/// reports errors of the disk in this way.
pub(super) fn thaw(mount: BorrowedFd<'_>) {
    // SAFETY: the kernel ignores the argument of FITHAW.
    let _ = unsafe { ioctl(mount, IntegerSetter::<FITHAW>::new_usize(0)) };
}
