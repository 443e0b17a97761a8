//! Between fork and exec.
//!
//! A new process must be in its session, its control group and its terminal before the program
//! begins, and must be its user when it looks at the working directory. Nothing safe can be done at
//! that moment: it is the one place here that needs `unsafe`.
#![expect(unsafe_code, reason = "std offers the moment between fork and exec as unsafe only")]

use super::cgroup::Cgroup;
use crate::exec::user::Account;
use libc::c_char;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, write};
use rustix::process::{Gid, Resource, Rlimit, Uid, chdir, ioctl_tiocsctty, setrlimit, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// What a process becomes before it becomes the program, and the program.
#[derive(Debug)]
pub(in crate::exec) struct Setup {
    pub(in crate::exec) image: Image,
    /// Whether its standard input is the terminal that shall control its session.
    pub(in crate::exec) terminal: bool,
    pub(in crate::exec) rlimits: Vec<(Resource, Rlimit)>,
    pub(in crate::exec) account: Option<Account>,
    pub(in crate::exec) cwd: CString,
    /// Whether the agent's own protection from the kernel's out-of-memory killer must go: a program
    /// that eats all memory must be the one that is chosen.
    pub(in crate::exec) expose_to_oom_killer: bool,
}

/// A program with its arguments and its environment, as the kernel takes them.
///
/// The standard library would look for the program once more, as `execvp` does, and that one hands a
/// file without `#!` to a shell.
#[derive(Debug)]
pub(in crate::exec) struct Image {
    path: CString,
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
    pub(in crate::exec) fn new(path: CString, args: Vec<CString>, env: Vec<CString>) -> Self {
        let pointers = |strings: &Vec<CString>| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        Self { path, argv: pointers(&args), envp: pointers(&env), _strings: [args, env] }
    }

    /// Becomes the program. Returns only if that fails.
    fn become_it(&self) -> io::Error {
        // SAFETY: a path and two arrays of pointers to strings, each with a null at its end, which
        // live as long as `self`.
        unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// What could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) enum Step {
    Session,
    Terminal,
    Limits,
    User,
    Cwd,
    /// The program itself.
    Exec,
}

/// Error numbers are below 4096; the step goes on top, since a number is all that the standard
/// library carries from the child to us.
const STEP_SHIFT: i32 = 16;

const STEPS: [(Step, i32); 5] =
    [(Step::Session, 1), (Step::Terminal, 2), (Step::Limits, 3), (Step::User, 4), (Step::Cwd, 5)];

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

/// Starts what `setup` says, in a session of its own and in `cgroup`, with the streams of `command`.
pub(super) fn spawn(
    mut command: Command,
    setup: Setup,
    cgroup: Option<&Cgroup>,
) -> io::Result<Child> {
    let entrance = cgroup.map(Cgroup::entrance).transpose()?;
    // SAFETY: what runs here is in a child of a process with several threads, so it may do only what
    // is safe in a signal handler. All of it is system calls, through rustix's own `syscall`
    // instructions and through execve(2); it allocates nothing, takes no lock and doesn't
    // panic. Everything it needs was allocated before the fork, and is not freed here: the closure is
    // never dropped in the child. Credentials are changed for the calling thread alone, and that is
    // the only one there.
    unsafe {
        command.pre_exec(move || Err(become_it(&setup, entrance.as_ref())));
    }
    command.spawn()
}

/// The highest signal there is (signal(7)).
const LAST_SIGNAL: libc::c_int = 64;

/// What the agent was started with, under nohup(1) or by a shell in the background, ends here: a
/// program that ignores a signal without having asked for it can't be ended by that signal.
fn forget_dispositions() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: takes no pointer. Those that can't be changed stay as they are, which the kernel
        // says by an error that changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Returns only if something fails.
fn become_it(setup: &Setup, entrance: Option<&OwnedFd>) -> io::Error {
    prepare(setup, entrance).err().unwrap_or_else(|| setup.image.become_it())
}

fn prepare(setup: &Setup, entrance: Option<&OwnedFd>) -> io::Result<()> {
    forget_dispositions();
    if let Some(entrance) = entrance {
        // Without it the process group has to do.
        let _ = write(entrance, b"0");
    }
    if setup.expose_to_oom_killer {
        let score = open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty());
        // Without a /proc there is no score to be changed either.
        let _ = score.and_then(|score| write(score, b"0"));
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
