//! From a request to a running process.

use super::ExecError;
use super::lookup::{DEFAULT_PATH, find, missing_interpreter};
use super::process::Process;
use minions_proto::message::Exec;
use rustix::io::Errno;
use std::env;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;
use tokio::task::spawn_blocking;

/// What a service manager tells the agent, and only the agent: a child that believed it would
/// answer the watchdog or take the agent's sockets for its own.
const NOT_FOR_CHILDREN: [&str; 9] = [
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Starts the program in `/`, in a process group of its own, with `/dev/null` as its input.
///
/// On a thread of its own, because looking up and loading a program reads files, and a file system
/// that hangs must hang this request alone. Dropping the future lets the start finish and then
/// kills what was started.
pub(super) async fn start(exec: Exec) -> Result<Process, ExecError> {
    spawn_blocking(move || spawn(&exec)).await.map_err(|_| ExecError::Interrupted)?
}

fn spawn(exec: &Exec) -> Result<Process, ExecError> {
    let path = env::var_os("PATH").filter(|path| !path.is_empty());
    let path_or_default = path.clone().unwrap_or_else(|| DEFAULT_PATH.into());
    let program = find(&exec.command, &path_or_default)?;
    // Opened here, so that a guest without a /dev gets an error about that.
    let null = File::open("/dev/null").map_err(ExecError::NoNullDevice)?;
    let mut command = Command::new(&program);
    command
        .arg0(&exec.command)
        .args(&exec.args)
        .current_dir("/")
        .process_group(0)
        .stdin(null)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if path.is_none() {
        command.env("PATH", path_or_default);
    }
    for name in NOT_FOR_CHILDREN {
        command.env_remove(name);
    }
    Process::spawn(command).map_err(|source| refused(&program, source))
}

/// `program` was there a moment ago, so "no such file" is about something that it needs.
fn refused(program: &Path, source: io::Error) -> ExecError {
    let path = program.display().to_string();
    match Errno::from_io_error(&source) {
        Some(Errno::NOENT) => {
            ExecError::NoInterpreter { path, missing: missing_interpreter(program), source }
        }
        Some(Errno::ACCESS | Errno::NOEXEC) => ExecError::NotExecutable { path, source },
        _ => ExecError::Start { path, source },
    }
}
