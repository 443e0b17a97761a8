//! Between fork and exec.
//!
//! A new process must be in its session, its control group and its terminal before the program
//! begins, and must be its user when it looks at the working directory. Nothing safe can be done at
//! that moment: it is the one place here that needs `unsafe`.
//!
//! It begins in its control group, by clone3(2). To move a process into one, the kernel stops all forks
//! of the machine, and waits for every processor to have noticed: 20 ms in a guest that is idle.
#![expect(unsafe_code, reason = "a process of one's own making")]

use super::cgroup::Cgroup;
use crate::exec::user::Account;
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

/// What a process becomes before it becomes the program, and the program.
#[derive(Debug)]
pub(in crate::exec) struct Setup {
    pub(in crate::exec) streams: Streams,
    pub(in crate::exec) image: Image,
    /// Whether its standard input is the terminal that shall control its session.
    pub(in crate::exec) terminal: bool,
    pub(in crate::exec) rlimits: Vec<(Resource, Rlimit)>,
    pub(in crate::exec) account: Option<Account>,
    pub(in crate::exec) cwd: CString,
    /// Nice value, where the agent's own is for the agent only.
    pub(in crate::exec) nice: Option<i32>,
    /// `oom_score_adj`, likewise: a program that eats all memory must be the one that is killed.
    pub(in crate::exec) oom_score_adj: Option<String>,
}

/// The program's ends of its streams. Three that block and are closed by exec, none of them a standard one
/// of ours.
#[derive(Debug)]
pub(in crate::exec) struct Streams {
    pub(in crate::exec) stdin: OwnedFd,
    pub(in crate::exec) stdout: OwnedFd,
    pub(in crate::exec) stderr: OwnedFd,
}

impl Streams {
    fn become_ours(&self) -> Result<(), Errno> {
        dup2_stdin(self.stdin.as_fd())?;
        dup2_stdout(self.stdout.as_fd())?;
        dup2_stderr(self.stderr.as_fd())
    }
}

/// A program with its arguments and its environment, as the kernel takes them.
///
/// The standard library would look for the program once more, as `execvp` does, and that one hands a
/// file without `#!` to a shell.
#[derive(Debug)]
pub(in crate::exec) struct Image {
    /// Files that can be the program, in the order in which they are tried.
    paths: Vec<CString>,
    /// Into `_strings`, with a null at the end.
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    _strings: [Vec<CString>; 2],
}

// SAFETY: the pointers lead to strings that the same value owns on the heap, that nobody changes, and
// that move with it.
unsafe impl Send for Image {}
// SAFETY: as above; nothing in it can be changed through a shared reference.
unsafe impl Sync for Image {}

impl Image {
    pub(in crate::exec) fn new(paths: Vec<CString>, args: Vec<CString>, env: Vec<CString>) -> Self {
        let pointers = |strings: &Vec<CString>| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        Self { paths, argv: pointers(&args), envp: pointers(&env), _strings: [args, env] }
    }

    /// Becomes the first of the files that this user can execute, as execvp(3) does. Returns only if there is none:
    /// with "permission denied" if that was the reason for one of them.
    fn become_it(&self) -> io::Error {
        let mut refused = Errno::NOENT;
        for path in &self.paths {
            // SAFETY: a path and two arrays of pointers to strings, each with a null at its end, which
            // live as long as `self`.
            unsafe { libc::execve(path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            let error = io::Error::last_os_error();
            match Errno::from_io_error(&error) {
                Some(errno) if self.paths.len() > 1 && is_elsewhere(errno) => {
                    refused = if refused == Errno::ACCESS { refused } else { errno };
                }
                _ => return error,
            }
        }
        refused.into()
    }
}

/// Whether a file is missing or out of reach, so that the program can be in another directory.
fn is_elsewhere(errno: Errno) -> bool {
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

/// What could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) enum Step {
    Streams,
    Session,
    Terminal,
    Limits,
    User,
    Cwd,
    /// The program itself.
    Exec,
}

/// Error numbers are below 4096; the step goes on top: a number is all that the child tells us.
const STEP_SHIFT: i32 = 16;

const STEPS: [(Step, i32); 6] = [
    (Step::Session, 1),
    (Step::Terminal, 2),
    (Step::Limits, 3),
    (Step::User, 4),
    (Step::Cwd, 5),
    (Step::Streams, 6),
];

impl Step {
    fn failed(self, errno: Errno) -> io::Error {
        let number = STEPS.iter().find(|(step, _)| *step == self).map_or(0, |(_, number)| *number);
        io::Error::from_raw_os_error(number << STEP_SHIFT | errno.raw_os_error())
    }

    /// Which step an error of [`spawn`] is from, and the kernel's own error.
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

/// A process that has become its program.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: Pid,
    /// Of the process, and closed by exec.
    pub(super) pidfd: OwnedFd,
}

/// Starts what `setup` says, in a session of its own and in `cgroup`. Without that, if the kernel refuses
/// it, the process group has to do, unless the program must be `confined`.
///
/// # Errors
///
/// The step's that failed ([`Step::of`]); nothing runs then, and nothing is left to be waited for.
pub(super) fn spawn(setup: &Setup, cgroup: Option<&Cgroup>, confined: bool) -> io::Result<Spawned> {
    let directory = cgroup.map(Cgroup::directory).transpose()?;
    // Closed by exec, and then the end of it is good news.
    let (failure, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let masked = Masked::all();
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
        // Less than that can't be: a pipe takes as much at once, or nothing.
        4 => {
            wait(spawned.pid)?;
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code)))
        }
        _ => Ok(spawned),
    }
}

/// Forks, into a control group if there is one. The child becomes the program, or says in `failure` why
/// not, and ends.
fn fork(cgroup: Option<&OwnedFd>, setup: &Setup, failure: &OwnedFd) -> io::Result<Spawned> {
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
    // SAFETY: without a stack and without shared memory it is a fork: the child goes on here, in a copy of
    // this thread alone. It is a child of a process with several threads, so it may do only what is
    // safe in a signal handler. All of it is system calls, through rustix's own `syscall` instructions and
    // through thin functions of libc; it allocates nothing, takes no lock, doesn't panic and drops nothing.
    // Signals are blocked, so that no handler runs in it. Credentials are changed for the calling thread
    // alone, and that is the only one there. The kernel writes to `pidfd`, which lives longer.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let error = become_it(setup);
                let code = error.raw_os_error().unwrap_or(libc::EIO);
                let _ = write(failure, &code.to_ne_bytes());
                libc::_exit(127)
            }
            pid => Ok(Spawned { pid: positive(pid)?, pidfd: OwnedFd::from_raw_fd(pidfd) }),
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

/// linux/sched.h: a descriptor of the new process; it begins in the control group of `cgroup`.
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// All signals blocked in this thread, until it is dropped.
struct Masked(libc::sigset_t);

impl Masked {
    fn all() -> Self {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: each call fills in what its pointer leads to; with these arguments none fails.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: reads a mask that was filled in, and writes none.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

/// What a process used.
#[derive(Debug, Clone, Copy)]
pub(in crate::exec) struct Used {
    pub(in crate::exec) user: Duration,
    pub(in crate::exec) system: Duration,
    pub(in crate::exec) max_rss_bytes: u64,
}

/// Waits for a child of ours to end, and reaps it. Blocks.
pub(super) fn wait(pid: Pid) -> io::Result<(ExitStatus, Used)> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    retry_on_intr(|| {
        // SAFETY: the kernel writes to both, which live longer.
        let waited = unsafe {
            libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, usage.as_mut_ptr())
        };
        let last = || Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
        if waited < 0 { Err(last()) } else { Ok(()) }
    })?;
    // SAFETY: numbers, and there are no invalid ones.
    let usage = unsafe { usage.assume_init() };
    let used = Used {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        // Told in units of 1024 bytes (getrusage(2)).
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    };
    Ok((ExitStatus::from_raw(status), used))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
}

/// Negative by no kernel; how wide it is depends on the machine.
fn part(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}

/// What a login shell has, whatever the agent was started with.
const UMASK: Mode = Mode::from_raw_mode(0o022);

/// The highest signal there is (signal(7)).
const LAST_SIGNAL: libc::c_int = 64;

/// What the agent was started with, under nohup(1) or by a shell in the background, ends here: a
/// program that ignores or blocks a signal without having asked for it can't be ended by that signal.
fn forget_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: takes no pointer. Those that can't be changed stay as they are, which the kernel
        // says by an error that changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: the first fills in the mask that the second reads.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Returns only if something fails.
fn become_it(setup: &Setup) -> io::Error {
    prepare(setup).err().unwrap_or_else(|| setup.image.become_it())
}

fn prepare(setup: &Setup) -> io::Result<()> {
    forget_signals();
    setup.streams.become_ours().map_err(|errno| Step::Streams.failed(errno))?;
    umask(UMASK);
    if let Some(nice) = setup.nice {
        // Never a higher priority than the agent's own, so that it can't be refused.
        let _ = setpriority_process(None, nice);
    }
    if let Some(score) = &setup.oom_score_adj {
        let file = open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty());
        // Without a /proc there is no score to be changed either.
        let _ = file.and_then(|file| write(file, score.as_bytes()));
    }
    setsid().map_err(|errno| Step::Session.failed(errno))?;
    if setup.terminal {
        ioctl_tiocsctty(rustix::stdio::stdin()).map_err(|errno| Step::Terminal.failed(errno))?;
    }
    for (resource, limit) in &setup.rlimits {
        setrlimit(*resource, *limit).map_err(|errno| Step::Limits.failed(errno))?;
    }
    if let Some(account) = &setup.account {
        become_user(account.uid, account.gid, &account.groups)
            .map_err(|errno| Step::User.failed(errno))?;
    }
    chdir(setup.cwd.as_c_str()).map_err(|errno| Step::Cwd.failed(errno))
}

fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), Errno> {
    // An agent that isn't root can only be who it is, and need not be changed for that.
    if !rustix::process::geteuid().is_root() && rustix::process::geteuid() == uid {
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
    fn an_error_says_which_step_it_is_from() {
        for (step, _) in STEPS {
            let (from, error) = Step::of(step.failed(Errno::PERM));
            assert_eq!((from, error.raw_os_error()), (step, Some(1)));
        }
        let (from, error) = Step::of(io::Error::from_raw_os_error(7));
        assert_eq!((from, error.raw_os_error()), (Step::Exec, Some(7)));
    }
}
