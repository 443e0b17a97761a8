//! Process creation, and the steps between fork and exec.
//!
//! A new process must have its session, control group and terminal before the program begins, and must have
//! switched to its user when it enters the working directory. The compiler cannot check code that runs between
//! fork and exec, so this module needs `unsafe`.
//!
//! The process starts in its control group, through clone3(2). Moving a process into a group makes the kernel
//! stop all forks and wait for every processor: 20 ms in an idle guest.
#![expect(unsafe_code, reason = "process creation has no safe wrapper")]

use super::cgroup::Cgroup;
use crate::exec::user::UserAccount;
use crate::protection::policy;
use libc::{c_char, c_int, c_long};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Gid, Pid, Resource, Rlimit, Uid, chdir, ioctl_tiocsctty, setpriority_process, setrlimit,
    setsid, umask,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Program to start, and the properties that its process gets before that.
#[derive(Debug)]
pub(in crate::exec) struct SpawnSetup {
    pub(in crate::exec) streams: ProgramStreams,
    pub(in crate::exec) image: ProgramImage,
    /// True if standard input is a terminal, which becomes the controlling one of the session.
    pub(in crate::exec) terminal: bool,
    pub(in crate::exec) rlimits: Vec<(Resource, Rlimit)>,
    pub(in crate::exec) account: Option<UserAccount>,
    pub(in crate::exec) cwd: CString,
    /// Nice value, if the agent has raised its own priority.
    pub(in crate::exec) nice: Option<i32>,
    /// Whether to reset the scheduling policy, because the agent has changed its own.
    pub(in crate::exec) default_policy: bool,
    /// `oom_score_adj`, if the agent has lowered its own: a program that uses all memory must be killed before
    /// the agent.
    pub(in crate::exec) oom_score_adj: Option<String>,
}

/// The program's ends of its streams: blocking, closed by exec, and none of them a standard stream of the agent.
#[derive(Debug)]
pub(in crate::exec) struct ProgramStreams {
    pub(in crate::exec) stdin: OwnedFd,
    pub(in crate::exec) stdout: OwnedFd,
    pub(in crate::exec) stderr: OwnedFd,
}

impl ProgramStreams {
    fn replace_standard_streams(&self) -> Result<(), Errno> {
        dup2_stdin(self.stdin.as_fd())?;
        dup2_stdout(self.stdout.as_fd())?;
        dup2_stderr(self.stderr.as_fd())
    }
}

/// A program with its arguments and its environment, in the form of execve(2).
///
/// The standard library is not used for this, because it searches for the program as `execvp` does, which runs a
/// file without `#!` in a shell.
#[derive(Debug)]
pub(in crate::exec) struct ProgramImage {
    /// Files that can be the program, in the order in which they are tried.
    paths: Vec<CString>,
    /// Pointers into `_strings`, followed by a null pointer.
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    _strings: [Vec<CString>; 2],
}

// SAFETY: the pointers lead to strings on the heap that the same value owns. They are never changed, and do not
// move when the value does.
unsafe impl Send for ProgramImage {}
// SAFETY: as above; no method changes the value through a shared reference.
unsafe impl Sync for ProgramImage {}

impl ProgramImage {
    pub(in crate::exec) fn new(paths: Vec<CString>, args: Vec<CString>, env: Vec<CString>) -> Self {
        let pointers = |strings: &Vec<CString>| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        Self { paths, argv: pointers(&args), envp: pointers(&env), _strings: [args, env] }
    }

    /// Executes the first file that this user can execute, as execvp(3) does. Returns only if all fail: with
    /// "permission denied" if that was the error of any of them.
    fn exec(&self) -> io::Error {
        let mut refused = Errno::NOENT;
        for path in &self.paths {
            // SAFETY: the arguments are a path and two arrays of pointers to strings, each terminated by a null,
            // and all live as long as `self`.
            unsafe { libc::execve(path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            let error = io::Error::last_os_error();
            match Errno::from_io_error(&error) {
                Some(errno) if self.paths.len() > 1 && may_be_elsewhere(errno) => {
                    refused = if refused == Errno::ACCESS { refused } else { errno };
                }
                _ => return error,
            }
        }
        refused.into()
    }
}

/// Reports whether a file is missing or out of reach, so that the program may be in another directory.
fn may_be_elsewhere(errno: Errno) -> bool {
    [
        Errno::ACCESS,
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::LOOP,
        Errno::NAMETOOLONG,
        Errno::NODEV,
        Errno::STALE,
        Errno::NOTCONN,
        Errno::TIMEDOUT,
        Errno::IO,
    ]
    .contains(&errno)
}

/// The step at which starting a program failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) enum SpawnStep {
    Streams,
    Session,
    Terminal,
    Limits,
    User,
    Cwd,
    /// Any other step: the fork, or the execution of the program.
    Exec,
}

/// Bit position of the step in the number that a failed child sends. Error numbers are below 4096 (`MAX_ERRNO`).
const STEP_SHIFT: i32 = 16;

/// Numbers of the steps. [`SpawnStep::Exec`] has none: its error is sent as it is.
const STEPS: [(SpawnStep, i32); 6] = [
    (SpawnStep::Session, 1),
    (SpawnStep::Terminal, 2),
    (SpawnStep::Limits, 3),
    (SpawnStep::User, 4),
    (SpawnStep::Cwd, 5),
    (SpawnStep::Streams, 6),
];

impl SpawnStep {
    fn failed(self, errno: Errno) -> io::Error {
        let number = STEPS.iter().find(|(step, _)| *step == self).map_or(0, |(_, number)| *number);
        io::Error::from_raw_os_error(number << STEP_SHIFT | errno.raw_os_error())
    }

    /// Splits an error of [`spawn`] into the step that failed and the kernel's error.
    pub(in crate::exec) fn of(error: io::Error) -> (Self, io::Error) {
        let code = error.raw_os_error().unwrap_or(0);
        match STEPS.iter().find(|(_, number)| *number == code >> STEP_SHIFT) {
            Some((step, _)) => {
                (*step, io::Error::from_raw_os_error(code & ((1 << STEP_SHIFT) - 1)))
            }
            None => (Self::Exec, error),
        }
    }
}

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
/// The error of the step that failed ([`SpawnStep::of`]). No process runs then, and none remains to be reaped.
pub(super) fn spawn(
    setup: &SpawnSetup,
    cgroup: Option<&Cgroup>,
    confined: bool,
) -> io::Result<SpawnedProcess> {
    let directory = cgroup.map(Cgroup::directory).transpose()?;
    // Exec closes the child's end: reading end of file means success.
    let (failure, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let masked = BlockedSignals::all();
    let spawned = match directory {
        Some(directory) if confined => fork(Some(&directory), setup, &theirs),
        Some(directory) => {
            fork(Some(&directory), setup, &theirs).or_else(|_| fork(None, setup, &theirs))
        }
        None => fork(None, setup, &theirs),
    };
    drop(masked);
    let spawned = spawned?;
    drop(theirs);
    let mut code = [0; 4];
    match retry_on_intr(|| read(&failure, &mut code))? {
        // A write of four bytes to a pipe is atomic, so there is no shorter read but the end.
        4 => {
            wait(spawned.pid)?;
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code)))
        }
        _ => Ok(spawned),
    }
}

/// Forks, into a control group if one is given. The child executes the program, or writes its error to `failure` and
/// exits.
fn fork(
    cgroup: Option<&OwnedFd>,
    setup: &SpawnSetup,
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
                let error = exec(setup);
                let code = error.raw_os_error().unwrap_or(libc::EIO);
                let _ = write(failure, &code.to_ne_bytes());
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
        // SAFETY: each call initialises the mask behind its pointer; with these arguments none fails.
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

/// Resources that a process and its reaped children used.
#[derive(Debug, Clone, Copy)]
pub(in crate::exec) struct ProcessUsage {
    pub(in crate::exec) user: Duration,
    pub(in crate::exec) system: Duration,
    pub(in crate::exec) max_rss_bytes: u64,
}

/// Waits for a child of this process to end, and reaps it. Blocks.
pub(super) fn wait(pid: Pid) -> io::Result<(ExitStatus, ProcessUsage)> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    retry_on_intr(|| {
        // SAFETY: the kernel writes to both, which live longer than the call.
        let waited = unsafe {
            libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, usage.as_mut_ptr())
        };
        let last = || Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
        if waited < 0 { Err(last()) } else { Ok(()) }
    })?;
    // SAFETY: all fields are numbers, for which every bit pattern is valid.
    let usage = unsafe { usage.assume_init() };
    let used = ProcessUsage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        // In units of 1024 bytes (getrusage(2)).
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    };
    Ok((ExitStatus::from_raw(status), used))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
}

/// Converts a part of a `timeval`, whose width depends on the architecture. The kernel reports no negative ones.
fn part(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}

/// Umask of programs: that of a login shell, regardless of the agent's own.
const UMASK: Mode = Mode::from_raw_mode(0o022);

/// The highest signal number (signal(7)).
const LAST_SIGNAL: libc::c_int = 64;

/// Resets all signal dispositions and the signal mask. An agent that was started by nohup(1), or by a shell in the
/// background, ignores some signals; a program that inherited this could not be ended by them.
fn reset_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: takes no pointer. For signals that cannot be changed, the call fails without an effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: the first call initialises the mask that the second reads.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Prepares the process and executes the program. Returns only if a step fails.
fn exec(setup: &SpawnSetup) -> io::Error {
    prepare(setup).err().unwrap_or_else(|| setup.image.exec())
}

fn prepare(setup: &SpawnSetup) -> io::Result<()> {
    reset_signals();
    setup.streams.replace_standard_streams().map_err(|errno| SpawnStep::Streams.failed(errno))?;
    umask(UMASK);
    if let Some(nice) = setup.nice {
        // Never a higher priority than the agent's own, so it is not refused.
        let _ = setpriority_process(None, nice);
    }
    if setup.default_policy {
        // A program under the agent's policy runs as well, only later.
        let _ = policy::set_default();
    }
    if let Some(score) = &setup.oom_score_adj {
        let file = open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty());
        // Without /proc the agent could not change its own score, so there is nothing to restore.
        let _ = file.and_then(|file| write(file, score.as_bytes()));
    }
    setsid().map_err(|errno| SpawnStep::Session.failed(errno))?;
    if setup.terminal {
        ioctl_tiocsctty(rustix::stdio::stdin())
            .map_err(|errno| SpawnStep::Terminal.failed(errno))?;
    }
    for (resource, limit) in &setup.rlimits {
        setrlimit(*resource, *limit).map_err(|errno| SpawnStep::Limits.failed(errno))?;
    }
    if let Some(account) = &setup.account {
        become_user(account.uid, account.gid, &account.groups)
            .map_err(|errno| SpawnStep::User.failed(errno))?;
    }
    chdir(setup.cwd.as_c_str()).map_err(|errno| SpawnStep::Cwd.failed(errno))
}

fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), Errno> {
    // An agent that is not root can only run programs as its own user and group, and then there is nothing to
    // change. A group that the request names comes without supplementary groups; another one is refused below.
    let (own_uid, own_gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !own_uid.is_root() && own_uid == uid && (!groups.is_empty() || gid == own_gid) {
        return Ok(());
    }
    set_thread_groups(groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_step_that_failed() {
        for (step, _) in STEPS {
            let (from, error) = SpawnStep::of(step.failed(Errno::PERM));
            assert_eq!((from, error.raw_os_error()), (step, Some(1)));
        }
        let (from, error) = SpawnStep::of(io::Error::from_raw_os_error(7));
        assert_eq!((from, error.raw_os_error()), (SpawnStep::Exec, Some(7)));
    }
}
