//! From a request to a running process.

use super::ExecError;
use super::agent_variables::is_for_agent;
use super::lookup::{DEFAULT_PATH, candidates, find, missing_interpreter};
use super::pipe::{Pipe, winsize};
use super::process::{Cgroups, Image, Limits, Process, Record, Setup, Started, Step, Streams};
use super::user::{self, Account};
use crate::protection::ProgramDefaults;
use minions_proto::message::{ExecStart, Tty};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::tcsetwinsize;
use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use tokio::task::spawn_blocking;

/// What most terminals understand.
const DEFAULT_TERM: &str = "xterm-256color";

/// A running program, and our ends of its streams.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) stdin: Option<Pipe>,
    pub(super) stdout: Pipe,
    /// A terminal has none.
    pub(super) stderr: Option<Pipe>,
}

/// Starts the program.
///
/// On a thread of its own, because looking up and loading a program reads files, and a file system
/// that hangs must hang this request alone. Not to be cancelled: what was started would be lost.
pub(super) async fn launch(
    start: ExecStart,
    record: Record,
    cgroups: Cgroups,
    defaults: ProgramDefaults,
) -> Result<Launched, ExecError> {
    let launched = spawn_blocking(move || spawn(&start, record, &cgroups, defaults));
    let (started, ends) = launched.await.map_err(|_| ExecError::Interrupted)??;
    let process = Process::watch(started).map_err(ExecError::Wait)?;
    let Ends { stdin, stdout, stderr, terminal } = ends;
    let pipe = |fd| Pipe::new(fd).map_err(ExecError::Wait);
    let stdout = pipe(stdout)?;
    let stdin = if terminal { Some(stdout.clone()) } else { stdin.map(pipe).transpose()? };
    Ok(Launched { process, stdin, stdout, stderr: stderr.map(pipe).transpose()? })
}

/// Our ends, which don't block.
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    /// Whether all of them are `stdout`.
    terminal: bool,
}

fn spawn(
    start: &ExecStart,
    record: Record,
    cgroups: &Cgroups,
    defaults: ProgramDefaults,
) -> Result<(Started, Ends), ExecError> {
    let account = start.user.as_deref().map(user::find).transpose()?;
    let cwd = start.cwd.as_deref().unwrap_or("/");
    let path = start.env.get("PATH").map(OsString::from).or_else(|| env::var_os("PATH"));
    let path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into());
    let programs = programs(start, &path, Path::new(cwd), account.as_ref())?;
    let image = image(start, &programs, environment(start, account.as_ref(), path));
    let made = match &start.tty {
        Some(tty) => terminal(tty),
        None => pipes(start.stdin),
    };
    let (ends, streams) = made.map_err(|source| ExecError::Streams(source.into()))?;
    let setup = Setup {
        streams,
        image: image.map_err(|_| ExecError::Nul)?,
        terminal: ends.terminal,
        rlimits: start.rlimits.iter().filter_map(|(name, limit)| rlimit(name, *limit)).collect(),
        account,
        cwd: CString::new(cwd).unwrap_or_default(),
        nice: defaults.nice,
        oom_score_adj: defaults.oom_score_adj.map(|score| score.to_string()),
    };
    let limits = Limits {
        memory_bytes: start.memory_bytes,
        pids: start.pids,
        dies_as_one: start.tty.is_none(),
    };
    let cgroup = cgroups.begin(&record, limits)?;
    match Started::spawn(&setup, cgroup, record, limits.first().is_some()) {
        Ok(started) => Ok((started, ends)),
        Err(error) => Err(refused(start, &programs, error)),
    }
}

/// Files that can be the program, at least one. Another user sees other files than the agent: directories that are
/// closed to that user, and directories of that user's that are closed to root (FUSE, NFS). So the new process itself
/// tries all candidates, after it has become that user.
fn programs(
    start: &ExecStart,
    path: &OsStr,
    cwd: &Path,
    account: Option<&Account>,
) -> Result<Vec<PathBuf>, ExecError> {
    match account {
        Some(account) if account.uid != rustix::process::geteuid() => {
            Ok(candidates(&start.command, path, cwd))
        }
        Some(_) | None => Ok(vec![find(&start.command, path, cwd)?]),
    }
}

/// Validation has refused strings with a NUL, and the guest's own files have none.
fn image(
    start: &ExecStart,
    programs: &[PathBuf],
    environment: BTreeMap<OsString, OsString>,
) -> Result<Image, NulError> {
    let args = std::iter::once(&start.command).chain(&start.args);
    let args = args.map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>()?;
    let env = environment.into_iter().map(|(mut variable, value)| {
        variable.push("=");
        variable.push(value);
        CString::new(variable.into_vec())
    });
    let paths = programs.iter().map(|path| CString::new(path.as_os_str().as_bytes()));
    Ok(Image::new(paths.collect::<Result<_, _>>()?, args, env.collect::<Result<_, _>>()?))
}

/// The agent's own, its user's, its terminal's, and then what was asked for.
fn environment(
    start: &ExecStart,
    account: Option<&Account>,
    path: OsString,
) -> BTreeMap<OsString, OsString> {
    let mut variables: BTreeMap<OsString, OsString> =
        env::vars_os().filter(|(name, _)| !is_for_agent(name)).collect();
    let of_account = |account: &Account| {
        let Account { name, home, shell, .. } = account;
        [("HOME", home), ("USER", name), ("LOGNAME", name), ("SHELL", shell)]
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
    };
    match account {
        Some(account) => variables.extend(of_account(account)),
        // Who stays who the agent is keeps what the agent was started with.
        None => {
            for (name, value) in user::of(rustix::process::geteuid()).iter().flat_map(of_account) {
                variables.entry(name).or_insert(value);
            }
        }
    }
    if let Some(tty) = &start.tty {
        variables.insert("TERM".into(), tty.term.as_deref().unwrap_or(DEFAULT_TERM).into());
    }
    variables.extend(start.env.iter().map(|(name, value)| (name.into(), value.into())));
    variables.insert("PATH".into(), path);
    variables
}

fn pipes(stdin: bool) -> Result<(Ends, Streams), Errno> {
    let (ours, theirs) = if stdin {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        (Some(without_blocking(ours)?), theirs)
    } else {
        // Opened here, so that a guest without a /dev gets an error about that.
        (None, open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    };
    let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout, stderr) = (without_blocking(stdout)?, without_blocking(stderr)?);
    Ok((
        Ends { stdin: ours, stdout, stderr: Some(stderr), terminal: false },
        Streams { stdin: theirs, stdout: their_stdout, stderr: their_stderr },
    ))
}

/// Our end only: the program's own must block, as every program expects.
fn without_blocking(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    Ok(fd)
}

fn terminal(tty: &Tty) -> Result<(Ends, Streams), Errno> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&slave, winsize(tty.rows, tty.cols))?;
    let again = |fd: &OwnedFd| {
        fd.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    let streams = Streams { stdin: again(&slave)?, stdout: again(&slave)?, stderr: slave };
    let stdout = without_blocking(master)?;
    Ok((Ends { stdin: None, stdout, stderr: None, terminal: true }, streams))
}

fn rlimit(name: &str, limit: u64) -> Option<(Resource, Rlimit)> {
    let resource = match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        // Validation has refused every other name.
        _ => return None,
    };
    Some((resource, Rlimit { current: Some(limit), maximum: Some(limit) }))
}

/// Says why no program was started. Which candidate was meant is looked up once more, for the message only.
fn refused(start: &ExecStart, programs: &[PathBuf], error: io::Error) -> ExecError {
    let (step, source) = Step::of(error);
    let there = programs.iter().find(|path| path.is_file());
    let meant = there.or(programs.first()).map(PathBuf::as_path).unwrap_or(Path::new(""));
    let path = meant.display().to_string();
    match (step, Errno::from_io_error(&source)) {
        (Step::Cwd, _) => {
            ExecError::Cwd { path: start.cwd.clone().unwrap_or_else(|| "/".into()), source }
        }
        (Step::User, _) => {
            ExecError::CantBecome { user: start.user.clone().unwrap_or_default(), source }
        }
        (Step::Limits, _) => ExecError::Limits(source),
        (Step::Streams | Step::Session | Step::Terminal, _) => ExecError::Streams(source),
        // A file that is there lacks something that it needs.
        (Step::Exec, Some(Errno::NOENT)) if there.is_some() => {
            ExecError::NoInterpreter { path, missing: missing_interpreter(meant), source }
        }
        (Step::Exec, Some(Errno::NOENT | Errno::NOTDIR)) => {
            ExecError::NotFound { command: start.command.clone() }
        }
        (Step::Exec, Some(Errno::ACCESS | Errno::NOEXEC | Errno::LOOP | Errno::NAMETOOLONG)) => {
            ExecError::NotExecutable { path, source }
        }
        (Step::Exec, Some(Errno::TOOBIG)) => ExecError::TooLong(source),
        (Step::Exec, _) => ExecError::Start { path, source },
    }
}
