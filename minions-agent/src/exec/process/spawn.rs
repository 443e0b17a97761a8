//! Process creation.
//!
//! The process starts in its control group, through clone3(2). Moving a process into a group makes the kernel
//! stop all forks and wait for every processor: 20 ms in an idle guest.
#![expect(unsafe_code, reason = "process creation has no safe wrapper")]

use super::cgroup::Cgroup;
use super::child::{self, ExecVectors, SignalReset};
use super::setup::SpawnSetup;
use super::step::{SpawnError, SpawnStep};
use super::wait::wait;
use libc::{c_int, c_long, c_void};
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
    let start = |cgroup| start(cgroup, setup, &vectors, &theirs);
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

/// Starts a process, in a control group if one is given. The process executes the program, or writes its error to
/// `failure` and exits.
fn start(
    cgroup: Option<BorrowedFd<'_>>,
    setup: &SpawnSetup,
    vectors: &ExecVectors<'_>,
    failure: &OwnedFd,
) -> io::Result<SpawnedProcess> {
    let child = ChildContext { setup, vectors, failure };
    // A process that switches to another user does not share the agent's memory meanwhile: that user may trace it.
    let method = if setup.account.is_none() { CloneMethod::Vfork } else { CloneMethod::Fork };
    match clone_process(cgroup, &child, method, SignalReset::Ignored) {
        // Kernels before 5.5 cannot reset the handlers.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            clone_process(cgroup, &child, method, SignalReset::All)
        }
        started => started,
    }
}

/// Relation of the new process to the memory of this one, until it executes its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloneMethod {
    /// It has a copy.
    Fork,
    /// It shares the memory, and the calling thread waits: the kernel neither copies page tables nor, later, each page
    /// that either process writes to.
    Vfork,
}

/// What the new process needs.
struct ChildContext<'a> {
    setup: &'a SpawnSetup,
    vectors: &'a ExecVectors<'a>,
    failure: &'a OwnedFd,
}

impl ChildContext<'_> {
    /// Executes the program, or reports the error and exits. Only for the new process.
    fn run(&self, signals: SignalReset) -> ! {
        let error = child::exec(self.setup, self.vectors, signals);
        let _ = write(self.failure, &error.code().to_ne_bytes());
        // SAFETY: takes no pointer, and ends only the new process.
        unsafe { libc::_exit(127) }
    }
}

fn clone_process(
    cgroup: Option<BorrowedFd<'_>>,
    child: &ChildContext<'_>,
    method: CloneMethod,
    signals: SignalReset,
) -> io::Result<SpawnedProcess> {
    let mut pidfd: c_int = -1;
    let into =
        cgroup.map(|cgroup| (CLONE_INTO_CGROUP, u64::from(cgroup.as_raw_fd().unsigned_abs())));
    let (flag, cgroup) = into.unwrap_or_default();
    let clear = match signals {
        SignalReset::Ignored => CLONE_CLEAR_SIGHAND,
        SignalReset::All => 0,
    };
    let mut arguments = CloneArgs {
        flags: CLONE_PIDFD | flag | clear,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup,
        ..CloneArgs::default()
    };
    let pid = match method {
        CloneMethod::Fork => fork(&arguments, child, signals),
        CloneMethod::Vfork => vfork(&mut arguments, child, signals),
    };
    if pid < 0 {
        let errno = i32::try_from(-pid).unwrap_or(libc::EIO);
        return Err(io::Error::from_raw_os_error(errno));
    }
    // SAFETY: the kernel has stored a new descriptor, which nothing else owns.
    Ok(SpawnedProcess { pid: positive(pid)?, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Forks. Returns the pid, or a negative error number.
fn fork(arguments: &CloneArgs, child: &ChildContext<'_>, signals: SignalReset) -> c_long {
    // SAFETY: without a stack and without shared memory this is a fork: the child continues here, in a copy of
    // the calling thread only. As the child of a process with several threads, it may only do what is safe in
    // a signal handler. It only makes system calls, through rustix's own `syscall` instructions and through thin
    // functions of libc; it does not allocate, lock, panic, or drop anything. Signals are blocked, so no handler
    // runs in it. Credentials are changed for the calling thread only, which is the child's only one. The kernel
    // writes to the place for the pidfd, which lives longer than the call.
    match unsafe { libc::syscall(libc::SYS_clone3, arguments, size_of::<CloneArgs>()) } {
        -1 => -c_long::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        0 => child.run(signals),
        pid => pid,
    }
}

/// Starts the process on a stack of its own, in the memory of this one. Returns the pid, or a negative error number, once
/// the process has executed its program or has ended.
fn vfork(arguments: &mut CloneArgs, child: &ChildContext<'_>, signals: SignalReset) -> c_long {
    let mut stack: Vec<MaybeUninit<StackBlock>> = Vec::with_capacity(STACK_BLOCKS);
    arguments.flags |= CLONE_VM | CLONE_VFORK;
    arguments.stack = stack.as_mut_ptr().expose_provenance() as u64;
    arguments.stack_size = (STACK_BLOCKS * size_of::<StackBlock>()) as u64;
    let entry = ChildEntry { child, signals };
    // SAFETY: the child runs on `stack`, which nothing else uses and which is aligned for a call; the calling thread, and
    // with it `stack` and `entry`, stays as it is until the child has executed its program or has ended (`CLONE_VFORK`).
    // Meanwhile the other threads run, and share the memory with the child: it only makes system calls, does not
    // allocate, lock, panic, or drop anything, and writes to no memory but its stack and this thread's `errno`. Its
    // descriptors, signal dispositions and credentials are its own. Signals are blocked, so no handler runs in it.
    let pid = unsafe { clone_with_stack(arguments, enter, (&raw const entry).cast()) };
    drop(stack);
    pid
}

/// Argument of [`enter`].
struct ChildEntry<'a> {
    child: &'a ChildContext<'a>,
    signals: SignalReset,
}

/// First function of a child with a stack of its own.
extern "C" fn enter(entry: *const c_void) -> ! {
    // SAFETY: `vfork` passes a pointer to a value that lives until this process has executed its program or has ended.
    let entry = unsafe { &*entry.cast::<ChildEntry<'_>>() };
    entry.child.run(entry.signals)
}

/// Calls clone3(2). In the child, calls `entry` with `argument` on the stack of `arguments`.
///
/// # Safety
///
/// The stack must be valid, aligned to 16 bytes at its end, and unused. What the child may do is up to the flags.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_with_stack(
    arguments: &CloneArgs,
    entry: extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
) -> c_long {
    let result: c_long;
    // SAFETY: according to the x86-64 ABI, the system call changes rax, rcx and r11 only. The child does not return from
    // here, so it changes no register that the parent uses.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const *arguments,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// See the version for x86-64.
///
/// # Safety
///
/// As there.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_with_stack(
    arguments: &CloneArgs,
    entry: extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
) -> c_long {
    let result: c_long;
    // SAFETY: according to the ABI of arm64 Linux, the system call changes x0 only. The child does not return from here, so
    // it changes no register that the parent uses.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") &raw const *arguments => result,
            in("x1") size_of::<CloneArgs>(),
            in("x20") argument,
            in("x21") entry,
        );
    }
    result
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

/// Flag of linux/sched.h: the process shares the memory.
const CLONE_VM: u64 = 0x100;
/// Flag of linux/sched.h: the calling thread waits until the process executes a program or ends.
const CLONE_VFORK: u64 = 0x4000;
/// Flag of linux/sched.h, since kernel 5.5: resets the signals that are not ignored.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// Flag of linux/sched.h: returns a descriptor of the new process.
const CLONE_PIDFD: u64 = 0x1000;
/// Flag of linux/sched.h: starts the process in the control group of [`CloneArgs::cgroup`].
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Unit of a stack, with the alignment that a call requires.
#[derive(Debug)]
#[repr(C, align(16))]
struct StackBlock([u8; 16]);

/// Size of the child's stack: 64 KiB. Only the pages that it uses take memory.
const STACK_BLOCKS: usize = 64 * 1024 / size_of::<StackBlock>();

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
