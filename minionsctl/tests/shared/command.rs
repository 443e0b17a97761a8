//! `minionsctl` as a user runs it, and its result.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Exit code and output of a command.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Returns a command for `minionsctl`, without input and without this machine's configuration.
pub(crate) fn minionsctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minionsctl"));
    command.args(args).env("XDG_CONFIG_HOME", "/nonexistent");
    command.env_remove("MINIONS_HOST").env_remove("MINIONS_TOKEN_FILE");
    command.env_remove("MINIONSCTL_COMPLETE");
    command.env_remove("MINIONS_AGENT_PORT").env_remove("MINIONS_CONTEXT").stdin(Stdio::null());
    command
}

/// Returns a command for `minionsctl` with the daemon at `host`.
pub(crate) fn ctl(host: &str, args: &[&str]) -> Command {
    minionsctl(&[&["--host", host], args].concat())
}

/// Returns a command for `minionsctl` with the agent of a VM, by the VM's socket, without a daemon.
pub(crate) fn direct(socket: &Path, args: &[&str]) -> Command {
    minionsctl(&[&["--socket", socket.to_str().unwrap()], args].concat())
}

impl Ran {
    #[track_caller]
    pub(crate) fn of(command: &mut Command) -> Self {
        command.output().unwrap().into()
    }

    #[track_caller]
    pub(crate) fn assert(&self, code: i32, stdout: &str, stderr: &str) -> &Self {
        let text = String::from_utf8_lossy(&self.stdout);
        assert_eq!(self.code, code, "{text}{}", self.stderr);
        assert!(text.contains(stdout), "stdout is {text:?}");
        assert!(self.stderr.contains(stderr), "stderr is {:?}", self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A running `minionsctl`, whose output can be read line by line. Dropping it kills the process.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(pid(&self.child), signal).unwrap();
    }

    /// Reads the rest of the output, and waits for the end.
    pub(crate) fn end(mut self) -> Ran {
        let mut stdout = Vec::new();
        io::copy(&mut self.stdout, &mut stdout).unwrap();
        let mut stderr = Vec::new();
        io::copy(self.child.stderr.as_mut().unwrap(), &mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        Output { status, stdout, stderr }.into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}
