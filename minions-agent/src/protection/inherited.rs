//! What a parent leaves its child without meaning to, undone at the agent's start.
#![expect(unsafe_code, reason = "signals and descriptors that are inherited by number")]

use rustix::fs::Mode;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::umask;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};

/// The first descriptor that is none of the three standard ones.
const FIRST: RawFd = 3;

/// The umask that login shells and service managers give.
const UMASK: u32 = 0o022;

/// linux/close_range.h: close at the next exec instead of now.
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Undoes it. To be called by the only thread.
///
/// * SIGCHLD is not ignored any more: the kernel would reap the agent's programs itself, and each would
///   be lost. A parent that ignores it to be rid of zombies passes that on.
/// * No signal is blocked any more: the agent would not hear that it is to end.
/// * Descriptors are closed in the agent's programs.
/// * The umask is the usual one, for the agent's programs and for files that it makes: a stricter one would hide
///   them from their users, a laxer one would let all users write to them.
pub fn forget() {
    // SAFETY: takes no pointer to anything of ours, and SIGCHLD can be set.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let mut none = MaybeUninit::uninit();
    // SAFETY: the first fills in the mask that the second reads.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    umask(Mode::from_raw_mode(UMASK));
    close_descriptors_on_exec();
}

/// Also the socket that a service manager passes: it is the agent's, and not for the agent's programs.
fn close_descriptors_on_exec() {
    let first = libc::c_uint::from(FIRST.unsigned_abs());
    // SAFETY: numbers only, and no descriptor is closed now.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
    };
    if done == 0 {
        return;
    }
    // Kernels before 5.11.
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for fd in numbers.filter(|fd: &RawFd| *fd >= FIRST) {
        // SAFETY: it is open at this moment, or the call fails; nothing is closed.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // The directory's own is gone by then, perhaps.
        let _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
}
