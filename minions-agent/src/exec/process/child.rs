//! The new process between fork and exec.
//!
//! It must have its session and its terminal before the program begins, and must have switched to its user when it
//! enters the working directory. As the child of a process with several threads, whose memory it may share, it may only
//! do what is safe in a signal handler: system calls. It does not allocate, lock, panic, or drop anything.
#![expect(unsafe_code, reason = "execution of a program has no safe wrapper")]

use super::setup::{ProgramImage, ProgramStreams, SpawnSetup};
use super::step::{SpawnError, SpawnStep};
use crate::protection::policy;
use libc::c_char;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, write};
use rustix::process::{
    Gid, Uid, chdir, ioctl_tiocsctty, setpriority_process, setrlimit, setsid, umask,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::LazyLock;

/// A [`ProgramImage`] in the form of execve(2). Made before the fork, because the child must not allocate.
///
/// The standard library is not used for this, because it searches for the program as `execvp` does, which runs a
/// file without `#!` in a shell.
pub(super) struct ExecVectors<'a> {
    paths: &'a [CString],
    /// Pointers to strings of the image, followed by a null pointer.
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Signals that the agent ignores.
    ignored: &'static [libc::c_int],
}

impl<'a> ExecVectors<'a> {
    pub(super) fn of(image: &'a ProgramImage) -> Self {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, envp) = (pointers(&image.args), pointers(&image.env));
        Self { paths: &image.paths, argv, envp, ignored: ignored_signals() }
    }

    /// Executes the first file that this user can execute, as execvp(3) does. Returns only on failure, with the error
    /// of a file that cannot be executed. If all files are missing or out of reach, "permission denied" takes
    /// precedence over other errors.
    fn exec(&self) -> Errno {
        let mut refused = Errno::NOENT;
        for path in self.paths {
            // SAFETY: the arguments are a path and two arrays of pointers to strings, each terminated by a null. The
            // strings live as long as `self`, which borrows the image that owns them.
            unsafe { libc::execve(path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            let errno = Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
            if self.paths.len() == 1 || !may_be_elsewhere(errno) {
                return errno;
            }
            refused = if refused == Errno::ACCESS { refused } else { errno };
        }
        refused
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

/// Umask of programs: that of a login shell, regardless of the agent's own.
const UMASK: Mode = Mode::from_raw_mode(0o022);

/// The highest signal number (signal(7)).
const LAST_SIGNAL: libc::c_int = 64;

/// Signals whose disposition the child must reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalReset {
    /// All of them.
    All,
    /// Signals that the agent ignores: the kernel has reset those that the agent handles (`CLONE_CLEAR_SIGHAND`).
    Ignored,
}

/// Returns the signals that this process ignores. Nothing in the agent ignores a signal after its start.
fn ignored_signals() -> &'static [libc::c_int] {
    static IGNORED: LazyLock<Vec<libc::c_int>> = LazyLock::new(|| {
        let is_ignored = |signal: &libc::c_int| {
            let mut action = MaybeUninit::<libc::sigaction>::uninit();
            // SAFETY: changes nothing; if the call succeeds, it has initialised the structure that is read then.
            unsafe {
                libc::sigaction(*signal, std::ptr::null(), action.as_mut_ptr()) == 0
                    && action.assume_init().sa_sigaction == libc::SIG_IGN
            }
        };
        (1..=LAST_SIGNAL).filter(is_ignored).collect()
    });
    &IGNORED
}

/// Resets signal dispositions and the signal mask. An agent that was started by nohup(1), or by a shell in the
/// background, ignores some signals; a program that inherited this could not be ended by them.
fn reset_signals(which: SignalReset, ignored: &[libc::c_int]) {
    let reset = |signal| {
        // SAFETY: takes no pointer. For signals that cannot be changed, the call fails without an effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    };
    match which {
        SignalReset::All => (1..=LAST_SIGNAL).for_each(reset),
        SignalReset::Ignored => ignored.iter().copied().for_each(reset),
    }
    let mut none = MaybeUninit::uninit();
    // SAFETY: the first call initialises the mask that the second reads.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Prepares the process and executes the program. Returns only if a step fails.
pub(super) fn exec(
    setup: &SpawnSetup,
    vectors: &ExecVectors<'_>,
    signals: SignalReset,
) -> SpawnError {
    match prepare(setup, vectors, signals) {
        Ok(()) => vectors.exec().into(),
        Err(error) => error,
    }
}

fn prepare(
    setup: &SpawnSetup,
    vectors: &ExecVectors<'_>,
    signals: SignalReset,
) -> Result<(), SpawnError> {
    reset_signals(signals, vectors.ignored);
    replace_standard_streams(&setup.streams).map_err(SpawnStep::Streams.failed())?;
    umask(UMASK);
    if let Some(nice) = setup.nice {
        // Never a higher priority than the agent's own, so it is not refused.
        let _ = setpriority_process(None, nice);
    }
    if setup.default_policy {
        // A failure is ignored: under the agent's policy, the program also runs, but may have to wait longer for a
        // processor.
        let _ = policy::set_default();
    }
    if let Some(score) = &setup.oom_score_adj {
        let file = open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty());
        // Without /proc the agent could not change its own score, so there is nothing to restore.
        let _ = file.and_then(|file| write(file, score.as_bytes()));
    }
    setsid().map_err(SpawnStep::Session.failed())?;
    if setup.terminal {
        ioctl_tiocsctty(rustix::stdio::stdin()).map_err(SpawnStep::Terminal.failed())?;
    }
    for (resource, limit) in &setup.rlimits {
        setrlimit(*resource, *limit).map_err(SpawnStep::Limits.failed())?;
    }
    if let Some(account) = &setup.account {
        become_user(account.uid, account.gid, &account.groups).map_err(SpawnStep::User.failed())?;
    }
    chdir(setup.cwd.as_c_str()).map_err(SpawnStep::Cwd.failed())
}

fn replace_standard_streams(streams: &ProgramStreams) -> Result<(), Errno> {
    dup2_stdin(streams.stdin.as_fd())?;
    dup2_stdout(streams.stdout.as_fd())?;
    dup2_stderr(streams.stderr.as_fd())
}

fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), Errno> {
    // An agent that is not root can only run programs as its own user and group, and then there is nothing to change.
    // `groups` is empty only if the request names a group: the calls below refuse any other than the agent's own.
    let (own_uid, own_gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !own_uid.is_root() && own_uid == uid && (!groups.is_empty() || gid == own_gid) {
        return Ok(());
    }
    set_thread_groups(groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}
