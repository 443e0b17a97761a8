//! Launch: turns a request into a running process.

use super::agent_variables::is_for_agent;
use super::error::ExecError;
use super::lookup::{DEFAULT_PATH, candidates, find, missing_interpreter};
use super::pipe::{PipeEnd, winsize};
use super::process::{
    CgroupFactory, Limits, ProgramImage, ProgramRecord, ProgramStreams, RunningProcess, SpawnError,
    SpawnSetup, SpawnStep, StartedProcess,
};
use super::user::{self, UserAccount};
use crate::protection::ProgramDefaults;
use crate::task::spawn_blocking;
use minions_proto::message::{ExecStart, Tty};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::tcsetwinsize;
use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Value of `TERM` for requests that give none: most terminals understand it.
const DEFAULT_TERM: &str = "xterm-256color";

/// A running program, and the agent's ends of its streams.
#[derive(Debug)]
pub(super) struct LaunchedProgram {
    pub(super) process: RunningProcess,
    pub(super) stdin: Option<PipeEnd>,
    pub(super) stdout: PipeEnd,
    /// `None` for a terminal: its output is one stream.
    pub(super) stderr: Option<PipeEnd>,
}

/// Type of the program's standard input, if the request has input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputKind {
    /// A pipe, as programs expect.
    Pipe,
    /// A stream socket: it distinguishes the end of the input from the end of the agent.
    Socket,
}

/// Starts the program.
///
/// Runs on its own thread, because looking up and loading a program reads files, and a file system that
/// hangs must block this request only. Not cancel safe: a program that was started would be lost.
pub(super) async fn launch(
    start: Arc<ExecStart>,
    input: InputKind,
    record: ProgramRecord,
    cgroups: CgroupFactory,
    defaults: ProgramDefaults,
) -> Result<LaunchedProgram, ExecError> {
    let launched = spawn_blocking(move || spawn(&start, input, record, &cgroups, defaults));
    let (started, ends) = launched.await.map_err(|_| ExecError::Interrupted)??;
    let process = RunningProcess::watch(started).map_err(ExecError::wait)?;
    let AgentStreams { stdin, stdout, stderr, terminal } = ends;
    let pipe = |fd| PipeEnd::new(fd).map_err(ExecError::wait);
    let stdout = pipe(stdout)?;
    let stdin = if terminal { Some(stdout.clone()) } else { stdin.map(pipe).transpose()? };
    Ok(LaunchedProgram { process, stdin, stdout, stderr: stderr.map(pipe).transpose()? })
}

/// The agent's ends of the streams, opened non-blocking.
struct AgentStreams {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    /// True if `stdout` is the master side of a terminal, and the only stream.
    terminal: bool,
}

fn spawn(
    start: &ExecStart,
    input: InputKind,
    record: ProgramRecord,
    cgroups: &CgroupFactory,
    defaults: ProgramDefaults,
) -> Result<(StartedProcess, AgentStreams), ExecError> {
    let account = start.user.as_deref().map(user::find).transpose()?;
    let cwd = start.cwd.as_deref().unwrap_or("/");
    let path = start.env.get("PATH").map(OsString::from).or_else(|| env::var_os("PATH"));
    let path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into());
    let programs = programs(start, &path, Path::new(cwd), account.as_ref())?;
    let image = image(start, &programs, environment(start, account.as_ref(), path));
    let opened = match &start.tty {
        Some(tty) => terminal(tty),
        None => pipes(start.stdin.then_some(input)),
    };
    let (ends, streams) = opened.map_err(ExecError::Streams)?;
    let setup = SpawnSetup {
        streams,
        image: image.map_err(|_| ExecError::Nul)?,
        terminal: ends.terminal,
        rlimits: start.rlimits.iter().filter_map(|(name, limit)| rlimit(name, *limit)).collect(),
        account,
        cwd: CString::new(cwd).unwrap_or_default(),
        nice: defaults.nice,
        default_policy: defaults.default_policy,
        oom_score_adj: defaults.oom_score_adj.map(|score| score.to_string()),
    };
    let limits = Limits {
        memory_bytes: start.memory_bytes,
        pids: start.pids,
        dies_as_one: start.tty.is_none(),
    };
    let cgroup = cgroups.begin(&record, limits)?;
    match StartedProcess::spawn(&setup, cgroup, record, limits.first().is_some()) {
        Ok(started) => Ok((started, ends)),
        Err(error) => Err(start_error(start, &programs, limits, error)),
    }
}

/// Returns the files that can be the program, at least one.
///
/// Another user can reach other files than the agent: directories may be closed to that user, and that user's
/// directories may be closed to root (FUSE, NFS). So the new process itself tries all candidates, after it has
/// switched to the user.
fn programs(
    start: &ExecStart,
    path: &OsStr,
    cwd: &Path,
    account: Option<&UserAccount>,
) -> Result<Vec<PathBuf>, ExecError> {
    match account {
        Some(account) if account.uid != rustix::process::geteuid() => {
            Ok(candidates(&start.command, path, cwd))
        }
        Some(_) | None => Ok(vec![find(&start.command, path, cwd)?]),
    }
}

/// Converts the program, its arguments and its environment to C strings.
///
/// A NUL byte is an error, but not expected: validation refuses it in requests, and the guest's own files and
/// variables contain none.
fn image(
    start: &ExecStart,
    programs: &[PathBuf],
    environment: BTreeMap<OsString, OsString>,
) -> Result<ProgramImage, NulError> {
    let args = std::iter::once(&start.command).chain(&start.args);
    let args = args.map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>()?;
    let env = environment.into_iter().map(|(mut variable, value)| {
        variable.push("=");
        variable.push(value);
        CString::new(variable.into_vec())
    });
    let paths = programs.iter().map(|path| CString::new(path.as_os_str().as_bytes()));
    Ok(ProgramImage {
        paths: paths.collect::<Result<_, _>>()?,
        args,
        env: env.collect::<Result<_, _>>()?,
    })
}

/// Returns the variables of the program: the agent's own, then the user's, the terminal's, and the requested ones.
/// Later ones replace earlier ones.
fn environment(
    start: &ExecStart,
    account: Option<&UserAccount>,
    path: OsString,
) -> BTreeMap<OsString, OsString> {
    let mut variables: BTreeMap<OsString, OsString> =
        env::vars_os().filter(|(name, _)| !is_for_agent(name)).collect();
    let of_account = |account: &UserAccount| {
        let UserAccount { name, home, shell, .. } = account;
        [("HOME", home), ("USER", name), ("LOGNAME", name), ("SHELL", shell)]
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
    };
    match account {
        Some(account) => variables.extend(of_account(account)),
        // A program of the agent's own user keeps the variables that the agent was started with.
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

fn pipes(stdin: Option<InputKind>) -> Result<(AgentStreams, ProgramStreams), Errno> {
    let (theirs, ours) = match stdin {
        Some(InputKind::Pipe) => {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            (theirs, Some(without_blocking(ours)?))
        }
        Some(InputKind::Socket) => {
            let flags = SocketFlags::CLOEXEC;
            let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            (theirs, Some(without_blocking(ours)?))
        }
        // Opened before the fork, so that the error of a guest without /dev is reported as such.
        None => (open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None),
    };
    let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout, stderr) = (without_blocking(stdout)?, without_blocking(stderr)?);
    Ok((
        AgentStreams { stdin: ours, stdout, stderr: Some(stderr), terminal: false },
        ProgramStreams { stdin: theirs, stdout: their_stdout, stderr: their_stderr },
    ))
}

/// Makes the agent's end non-blocking. The program's end must block, as programs expect.
fn without_blocking(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    Ok(fd)
}

fn terminal(tty: &Tty) -> Result<(AgentStreams, ProgramStreams), Errno> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&slave, winsize(tty.rows, tty.cols))?;
    let duplicate = |fd: &OwnedFd| {
        fd.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    let streams =
        ProgramStreams { stdin: duplicate(&slave)?, stdout: duplicate(&slave)?, stderr: slave };
    let stdout = without_blocking(master)?;
    Ok((AgentStreams { stdin: None, stdout, stderr: None, terminal: true }, streams))
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

/// Returns the reason why no program was started. For the message, looks again for a candidate that exists.
fn start_error(
    start: &ExecStart,
    programs: &[PathBuf],
    limits: Limits,
    error: SpawnError,
) -> ExecError {
    let SpawnError { step, errno: source } = error;
    let existing = programs.iter().find(|path| path.is_file());
    let program = existing.or(programs.first()).map(PathBuf::as_path).unwrap_or(Path::new(""));
    let path = program.display().to_string();
    match (step, source) {
        (SpawnStep::Cwd, _) => {
            ExecError::Cwd { path: start.cwd.clone().unwrap_or_else(|| "/".into()), source }
        }
        (SpawnStep::User, _) => {
            ExecError::SwitchUser { user: start.user.clone().unwrap_or_default(), source }
        }
        (SpawnStep::Limits, _) => ExecError::Limits(source),
        (SpawnStep::Streams | SpawnStep::Session | SpawnStep::Terminal, _) => {
            ExecError::Streams(source)
        }
        // The kernel has no free process id, or no memory within the limit.
        (SpawnStep::Group, Errno::AGAIN | Errno::NOMEM) => ExecError::Start { path, source },
        (SpawnStep::Group, _) => match limits.unenforceable() {
            Some(invalid) => ExecError::Invalid(invalid),
            None => ExecError::Start { path, source },
        },
        // The file exists, so the kernel did not find its interpreter.
        (SpawnStep::Exec, Errno::NOENT) if existing.is_some() => {
            ExecError::MissingInterpreter { path, missing: missing_interpreter(program), source }
        }
        (SpawnStep::Exec, Errno::NOENT | Errno::NOTDIR) => {
            ExecError::NotFound { command: start.command.clone() }
        }
        (SpawnStep::Exec, Errno::ACCESS | Errno::NOEXEC | Errno::LOOP | Errno::NAMETOOLONG) => {
            ExecError::NotExecutable { path, source }
        }
        (SpawnStep::Exec, Errno::TOOBIG) => ExecError::TooLong(source),
        (SpawnStep::Exec, _) => ExecError::Start { path, source },
    }
}
