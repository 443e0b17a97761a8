//! The scheduling policy: when the agent gets a processor, apart from how much of it.
//!
//! A thread of the default policy takes the processor as soon as it wakes up, if its priority is higher. The agent
//! wakes up at each write of a program to its pipe, so with one processor it would read a few bytes at a time: 16 MiB
//! through `tee` took 10.1 s in an emulated guest, and 2.4 s under `SCHED_BATCH`, whose threads wait for the end of
//! the running thread's slice (sched(7)). An idle processor is taken at once under either policy.
#![expect(unsafe_code, reason = "no safe wrapper of sched_setscheduler(2) is in the dependencies")]

use rustix::io::Errno;
use std::io;

/// Sets the policy of the calling thread and of the threads that it starts to `SCHED_BATCH`. Returns whether the
/// policy was the default one: a policy that an administrator chose (real time, idle) stays.
///
/// # Errors
///
/// A seccomp filter or a container that forbids the call.
pub(super) fn set_batch() -> io::Result<bool> {
    // SAFETY: takes no pointer.
    if unsafe { libc::sched_getscheduler(0) } != libc::SCHED_OTHER {
        return Ok(false);
    }
    set(libc::SCHED_BATCH)?;
    Ok(true)
}

/// Sets the policy of the calling thread to the default one.
///
/// Async-signal-safe: one system call, no allocation.
///
/// # Errors
///
/// As the kernel reports them. Leaving `SCHED_BATCH` needs no privilege.
pub(crate) fn set_default() -> Result<(), Errno> {
    set(libc::SCHED_OTHER)
}

fn set(policy: libc::c_int) -> Result<(), Errno> {
    // Both policies take the priority 0 only; the nice value stays.
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a local structure, which the kernel copies.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}
