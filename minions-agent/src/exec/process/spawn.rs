//! Process creation.
//!
//! The process starts in its control group, through clone3(2). Moving a process into a group makes the kernel
//! stop all forks and wait for every processor: 20 ms in an idle guest.
#![expect(unsafe_code, reason = "process creation has no safe wrapper")]

use super::cgroup::Cgroup;
use super::child::{self, ExecVectors};
use super::setup::SpawnSetup;
use super::step::{SpawnError, SpawnStep};
use super::wait::wait;
use libc::{c_int, c_long};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A process that executes its program.
#[derive(Debug)]
pub(super) struct SpawnedProcess {
    pub(super) pid: Pid,
    /// Descriptor of the process, closed by exec.
    pub(super) pidfd: OwnedFd,
}

/// Starts the program of `setup`, in a new session and in `cgroup`. If the kernel refuses the control group, starts
/// it without, unless it must be `confined`.
///
/// # Errors
///
/// The step that failed. No process runs then, and none remains to be reaped.
pub(super) fn spawn(
    setup: &SpawnSetup,
    cgroup: Option<&Cgroup>,
    confined: bool,
) -> Result<SpawnedProcess, SpawnError> {
    let directory = cgroup.and_then(Cgroup::directory);
    // Exec closes the child's end: reading end of file means success.
    let (failure, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let vectors = ExecVectors::of(&setup.image);
    let fork = |cgroup| fork(cgroup, setup, &vectors, &theirs);
    let masked = BlockedSignals::all();
    let spawned = match directory {
        Some(directory) if confined => fork(Some(directory))
            .map_err(|error| SpawnError { step: SpawnStep::Group, ..SpawnError::from(error) }),
        Some(directory) => fork(Some(directory)).or_else(|_| fork(None)).map_err(SpawnError::from),
        None if confined => Err(SpawnStep::Group.failed()(Errno::NOENT)),
        None => fork(None).map_err(SpawnError::from),
    };
    drop(masked);
    let spawned = spawned?;
    drop(theirs);
    let mut code = [0; 4];
    match retry_on_intr(|| read(&failure, &mut code))? {
        // A write of four bytes to a pipe is atomic, so there is no shorter read but the end.
        4 => {
            wait(spawned.pid)?;
            Err(SpawnError::from_code(i32::from_ne_bytes(code)))
        }
        _ => Ok(spawned),
    }
}

/// Forks, into a control group if one is given. The child executes the program, or writes its error to `failure` and
/// exits.
fn fork(
    cgroup: Option<BorrowedFd<'_>>,
    setup: &SpawnSetup,
    vectors: &ExecVectors<'_>,
    failure: &OwnedFd,
) -> io::Result<SpawnedProcess> {
    let mut pidfd: c_int = -1;
    let into =
        cgroup.map(|cgroup| (CLONE_INTO_CGROUP, u64::from(cgroup.as_raw_fd().unsigned_abs())));
    let (flag, cgroup) = into.unwrap_or_default();
    let arguments = CloneArgs {
        flags: CLONE_PIDFD | flag,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup,
        ..CloneArgs::default()
    };
    // SAFETY: without a stack and without shared memory this is a fork: the child continues here, in a copy of
    // the calling thread only. As the child of a process with several threads, it may only do what is safe in
    // a signal handler. It only makes system calls, through rustix's own `syscall` instructions and through thin
    // functions of libc; it does not allocate, lock, panic, or drop anything. Signals are blocked, so no handler
    // runs in it. Credentials are changed for the calling thread only, which is the child's only one. The kernel
    // writes to `pidfd`, which lives longer than the call.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let error = child::exec(setup, vectors);
                let _ = write(failure, &error.code().to_ne_bytes());
                libc::_exit(127)
            }
            pid => Ok(SpawnedProcess { pid: positive(pid)?, pidfd: OwnedFd::from_raw_fd(pidfd) }),
        }
    }
}

fn positive(pid: c_long) -> io::Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `struct clone_args` of linux/sched.h, as of its third version (kernel 5.7).
#[repr(C, align(8))]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Flag of linux/sched.h: returns a descriptor of the new process.
const CLONE_PIDFD: u64 = 0x1000;
/// Flag of linux/sched.h: starts the process in the control group of [`CloneArgs::cgroup`].
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Guard that blocks all signals in this thread, and restores the mask when dropped.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn all() -> Self {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: each call initialises the mask that its pointer refers to; with these arguments none fails.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: reads a mask that was initialised, and writes none.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}
