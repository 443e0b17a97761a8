//! Resets process state that the agent inherited by accident from its parent.
#![expect(unsafe_code, reason = "signals and descriptors that are inherited by number")]

use rustix::fs::Mode;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::umask;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};

/// First descriptor after the three standard ones.
const FIRST: RawFd = 3;

/// Umask that login shells and service managers set.
const UMASK: u32 = 0o022;

/// Flag from linux/close_range.h: close at the next exec instead of now.
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Resets signals and descriptors. Must be called while the process has only one thread.
///
/// * SIGCHLD gets its default action: if it is ignored, the kernel reaps the agent's programs itself, and
///   their exit statuses are lost. A child inherits this from a parent that ignores SIGCHLD to avoid zombies.
/// * All signals are unblocked: otherwise the agent could miss SIGTERM.
/// * Inherited descriptors become close-on-exec, so that the agent's programs do not get them.
/// * The umask is set to the usual value, for the agent's programs and for the files that the agent creates. With a
///   stricter one, users could not read these files; with a weaker one, all users could write to them.
pub fn forget() {
    // SAFETY: passes no pointer, and the action of SIGCHLD can be set.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let mut none = MaybeUninit::uninit();
    // SAFETY: the first call fills in the mask that the second call reads.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    umask(Mode::from_raw_mode(UMASK));
    close_descriptors_on_exec();
}

/// Marks all but the standard descriptors close-on-exec, including the socket passed by a service manager.
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
        // SAFETY: the descriptor is open at this moment, or the call fails; nothing is closed.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // The descriptor of the directory listing itself may be closed already.
        let _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
}
