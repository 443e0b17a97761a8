//! The system call that creates a process: clone3(2).
#![expect(unsafe_code, reason = "the system call has no safe wrapper")]

use libc::{c_int, c_long, c_void};
use rustix::process::Pid;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Relation of the new process to the memory of this one, until it executes its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloneMethod {
    /// Copy of the memory.
    Fork,
    /// Shared memory, while the calling thread waits: the kernel copies neither page tables nor, later, each page
    /// that either process writes to.
    Vfork,
}

/// Creates a process, in `cgroup` if one is given, that runs `child` and, if that returns, exits with 127. If `clears_handlers`, the signals that this process
/// does not ignore have their default disposition in it (since kernel 5.5). Returns the process with its descriptor.
///
/// # Errors
///
/// Those of clone3(2); `EINVAL` also if the kernel does not know a flag.
///
/// # Safety
///
/// `child` runs as the child of a process with several threads, whose memory it may share: it may only do what is safe in
/// a signal handler, and write to no memory but its own variables and atomic ones. Signals must be blocked, so that no handler runs in it.
pub(super) unsafe fn clone_process<F: Fn()>(
    cgroup: Option<BorrowedFd<'_>>,
    method: CloneMethod,
    clears_handlers: bool,
    child: &F,
) -> io::Result<(Pid, OwnedFd)> {
    let mut pidfd: c_int = -1;
    let into =
        cgroup.map(|cgroup| (CLONE_INTO_CGROUP, u64::from(cgroup.as_raw_fd().unsigned_abs())));
    let (flag, cgroup) = into.unwrap_or_default();
    let clear = if clears_handlers { CLONE_CLEAR_SIGHAND } else { 0 };
    let mut arguments = CloneArgs {
        flags: CLONE_PIDFD | flag | clear,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup,
        ..CloneArgs::default()
    };
    // SAFETY: the caller vouches for `child`.
    let result = unsafe {
        match method {
            CloneMethod::Fork => fork(&arguments, child),
            CloneMethod::Vfork => vfork(&mut arguments, child),
        }
    };
    if result < 0 {
        let errno = i32::try_from(-result).unwrap_or(libc::EIO);
        return Err(io::Error::from_raw_os_error(errno));
    }
    // SAFETY: the kernel has stored a new descriptor, which nothing else owns.
    Ok((positive(result)?, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Forks. Returns the pid, or a negative error number.
///
/// # Safety
///
/// As [`clone_process`].
unsafe fn fork<F: Fn()>(arguments: &CloneArgs, child: &F) -> c_long {
    // SAFETY: without a stack and without shared memory this is a fork: the child continues here, in a copy of the
    // calling thread only. The kernel writes to the place for the pidfd, which lives longer than the call.
    match unsafe { libc::syscall(libc::SYS_clone3, arguments, size_of::<CloneArgs>()) } {
        -1 => -c_long::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        0 => run(child),
        pid => pid,
    }
}

/// Starts the process on a stack of its own, in the memory of this one. Returns the pid, or a negative error number, once
/// the process has executed its program or has ended.
///
/// # Safety
///
/// As [`clone_process`].
unsafe fn vfork<F: Fn()>(arguments: &mut CloneArgs, child: &F) -> c_long {
    let mut stack: Vec<MaybeUninit<StackBlock>> = Vec::with_capacity(STACK_BLOCKS);
    arguments.flags |= CLONE_VM | CLONE_VFORK;
    arguments.stack = stack.as_mut_ptr().expose_provenance() as u64;
    arguments.stack_size = (STACK_BLOCKS * size_of::<StackBlock>()) as u64;
    // SAFETY: the child runs on `stack`, which nothing else uses and which is aligned for a call. The calling thread, and
    // with it `stack` and what `child` borrows, stays as it is until the child has executed its program or has ended
    // (`CLONE_VFORK`). Meanwhile the other threads run, and share the memory with the child, which writes only to its
    // stack, to atomic variables and to this thread's `errno`. Its descriptors, signal dispositions and credentials are its own.
    let result = unsafe { clone_with_stack(arguments, enter::<F>, (&raw const *child).cast()) };
    drop(stack);
    result
}

/// First function of a child with a stack of its own.
extern "C" fn enter<F: Fn()>(child: *const c_void) -> ! {
    // SAFETY: `vfork` passes a pointer to a value that lives until this process has executed its program or has ended.
    run(unsafe { &*child.cast::<F>() })
}

/// Runs the child to its end.
fn run<F: Fn()>(child: &F) -> ! {
    child();
    // SAFETY: takes no pointer, and ends only the new process.
    unsafe { libc::_exit(127) }
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
