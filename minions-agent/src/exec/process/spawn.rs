//! Process creation.
//!
//! The process starts in its control group, through clone3(2). Moving a process into a group makes the kernel
//! stop all forks and wait for every processor: 20 ms in an idle guest.
#![expect(unsafe_code, reason = "process creation has no safe wrapper")]

use super::cgroup::Cgroup;
use super::child::{self, ExecVectors, SignalReset};
use super::clone::{CloneMethod, clone_process};
use super::setup::SpawnSetup;
use super::step::{SpawnError, SpawnStep};
use super::wait::wait;
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::system::uname;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI32, Ordering};

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
    // A process that switches to another user does not share the agent's memory meanwhile: that user may trace it. Nor does
    // one with limits: the OOM killer spares a process that another one waits for.
    let may_share = setup.account.is_none() && !confined && can_share_memory();
    let method = if may_share { CloneMethod::Vfork } else { CloneMethod::Fork };
    let failure = FailureReport::of(method)?;
    let vectors = ExecVectors::of(&setup.image);
    let start = |cgroup| start(cgroup, method, setup, &vectors, &failure);
    let masked = BlockedSignals::all();
    let spawned = match directory {
        Some(directory) if confined => start(Some(directory))
            .map_err(|error| SpawnError { step: SpawnStep::Group, ..SpawnError::from(error) }),
        Some(directory) => {
            start(Some(directory)).or_else(|_| start(None)).map_err(SpawnError::from)
        }
        None if confined => Err(SpawnStep::Group.failed()(Errno::NOENT)),
        None => start(None).map_err(SpawnError::from),
    };
    drop(masked);
    let spawned = spawned?;
    match failure.received()? {
        None => Ok(spawned),
        Some(error) => {
            wait(spawned.pid)?;
            Err(error)
        }
    }
}

/// Report of the child about the step that failed.
enum FailureReport {
    /// Pipe for a child with memory of its own: the agent's end and the child's.
    Pipe(OwnedFd, OwnedFd),
    /// Number of the error, for a child that shares the agent's memory. 0: no step has failed.
    Memory(AtomicI32),
}

impl FailureReport {
    fn of(method: CloneMethod) -> Result<Self, Errno> {
        Ok(match method {
            CloneMethod::Vfork => Self::Memory(AtomicI32::new(0)),
            CloneMethod::Fork => {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
                Self::Pipe(ours, theirs)
            }
        })
    }

    /// Reports an error; called in the child.
    fn send(&self, error: SpawnError) {
        match self {
            Self::Pipe(_, theirs) => _ = write(theirs, &error.code().to_ne_bytes()),
            Self::Memory(code) => code.store(error.code(), Ordering::Release),
        }
    }

    /// Waits until the child has executed its program or has failed. Returns the failure.
    fn received(self) -> Result<Option<SpawnError>, Errno> {
        let code = match self {
            Self::Pipe(ours, theirs) => {
                // Exec closes the child's end: reading end of file means success.
                drop(theirs);
                let mut code = [0; 4];
                // A write of four bytes to a pipe is atomic, so there is no shorter read but the end.
                retry_on_intr(|| read(&ours, &mut code))?;
                i32::from_ne_bytes(code)
            }
            // The system call that created the child has returned, so the child has done both.
            Self::Memory(code) => code.into_inner(),
        };
        Ok((code != 0).then(|| SpawnError::from_code(code)))
    }
}

/// Starts a process, in a control group if one is given. The process executes the program, or writes its error to
/// `failure` and exits.
fn start(
    cgroup: Option<BorrowedFd<'_>>,
    method: CloneMethod,
    setup: &SpawnSetup,
    vectors: &ExecVectors<'_>,
    failure: &FailureReport,
) -> io::Result<SpawnedProcess> {
    let clone = |signals| {
        let child = || failure.send(child::exec(setup, vectors, signals));
        let clears_handlers = signals == SignalReset::Ignored;
        // SAFETY: the child only makes system calls, through rustix's own `syscall` instructions and through thin functions
        // of libc, and stores a number; it does not allocate, lock, panic, or drop anything. Signals are blocked, so no handler runs in it.
        // Credentials are changed for the calling thread only, which is the child's only one.
        unsafe { clone_process(cgroup, method, clears_handlers, &child) }
    };
    let cloned = match clone(SignalReset::Ignored) {
        // Kernels before 5.5 cannot reset the handlers.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => clone(SignalReset::All),
        cloned => cloned,
    };
    cloned.map(|(pid, pidfd)| SpawnedProcess { pid, pidfd })
}

/// Reports whether a process may share the agent's memory until it executes its program. Before Linux 5.16, a core dump of
/// one process kills all that share its memory.
fn can_share_memory() -> bool {
    static CAN: LazyLock<bool> =
        LazyLock::new(|| is_since_5_16(&uname().release().to_string_lossy()));
    *CAN
}

fn is_since_5_16(release: &str) -> bool {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
    let (major, minor) = (numbers.next(), numbers.next());
    matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (5_u32, 16_u32))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_only_on_kernels_whose_core_dumps_affect_one_process() {
        for release in ["5.16.0", "6.1.0-57-cloud-amd64", "6.12", "10.0-rc1"] {
            assert!(is_since_5_16(release), "{release}");
        }
        for release in ["5.15.190", "5.4.0-generic", "4.19", "", "rc", "6"] {
            assert!(!is_since_5_16(release), "{release}");
        }
    }
}
