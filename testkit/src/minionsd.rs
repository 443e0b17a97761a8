//! minionsd as a process of its own, which unlike a task can be killed, limited and measured.
//!
//! ```text
//!   <dir>/minionsd.sock    Unix socket of the daemon
//!   <dir>/minionsd.toml    configuration, if the test gives one
//!   <dir>/token            token, if the test gives one
//!   <dir>/log              standard error
//!   <dir>/<vm>.vsock       sockets of the VMs, unless the test chooses another directory
//! ```
//!
//! Every failure in this module ends the test with a panic, except that of [`MinionsdBuilder::try_spawn`].
#![expect(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

use crate::built::program;
use crate::daemon::{Reply, http, read};
use crate::wait::{DEADLINE, until, until_async};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Timeout of [`Minionsd::get`]. Shorter than [`DEADLINE`], so that a wait can try again.
const ANSWER: Duration = Duration::from_secs(10);

/// Settings of a daemon that has not been started yet.
#[derive(Debug)]
pub struct MinionsdBuilder {
    program: Option<PathBuf>,
    launcher: Vec<OsString>,
    own: Option<TempDir>,
    dir: PathBuf,
    vms: Option<PathBuf>,
    listen: String,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    log: Option<PathBuf>,
    is_piped: bool,
}

/// Running daemon; killed when dropped.
#[derive(Debug)]
pub struct Minionsd {
    child: Child,
    dir: PathBuf,
    vms: PathBuf,
    log: PathBuf,
    http: reqwest::Client,
    _own: Option<TempDir>,
}

impl MinionsdBuilder {
    /// Uses this directory, which outlives the daemon, instead of a new one.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        (self.own, self.dir) = (None, dir.to_owned());
        self
    }

    /// Returns the daemon's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Uses this program instead of the one next to the test program.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Starts the daemon with a command in front of it, such as `env --block-signal`, which must not fork.
    #[must_use]
    pub fn launcher<const N: usize>(mut self, command: [&str; N]) -> Self {
        self.launcher = command.map(OsString::from).to_vec();
        self
    }

    /// Runs a shell script first, for example `ulimit -n 64`, in the process of the daemon.
    #[must_use]
    pub fn after_script(self, script: &str) -> Self {
        self.launcher(["sh", "-e", "-c", &format!("{script}\nexec \"$@\""), "sh"])
    }

    /// Uses this directory for the sockets of the VMs.
    #[must_use]
    pub fn vms(mut self, dir: &Path) -> Self {
        self.vms = Some(dir.to_owned());
        self
    }

    /// Listens on this TCP address. Without this call, the daemon does not listen on TCP.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = T>) -> Self {
        arguments.into_iter().fold(self, |builder, argument| builder.arg(argument))
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Writes a configuration file.
    #[must_use]
    pub fn config(self, text: &str) -> Self {
        let path = self.dir.join("minionsd.toml");
        fs::write(&path, text).unwrap();
        self.arg("--config").arg(path)
    }

    /// Writes a token file, with permissions that minionsd accepts.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        let path = self.dir.join("token");
        fs::write(&path, token).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        self.arg("--token-file").arg(path)
    }

    /// Writes the log to this file.
    #[must_use]
    pub fn log(mut self, path: &Path) -> Self {
        self.log = Some(path.to_owned());
        self
    }

    /// Connects standard error to a pipe, which the test reads ([`Minionsd::stderr`]), instead of the log.
    #[must_use]
    pub fn pipe_log(mut self) -> Self {
        self.is_piped = true;
        self
    }

    /// Starts the daemon, without waiting until it serves.
    #[must_use]
    pub fn spawn(self) -> Minionsd {
        self.try_spawn().unwrap()
    }

    /// Starts the daemon, and waits until its Unix socket takes connections: the file may be that of a killed daemon, and
    /// exists before the daemon listens.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Minionsd {
        let mut daemon = self.spawn();
        until("minionsd listens", || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("minionsd ended ({status}): {}", daemon.log());
            }
            UnixStream::connect(daemon.unix_socket()).is_ok()
        });
        daemon
    }

    /// Starts the daemon as [`Self::spawn`].
    ///
    /// # Errors
    ///
    /// The log cannot be created, or the program cannot be started.
    pub fn try_spawn(self) -> io::Result<Minionsd> {
        let program = self.program.unwrap_or_else(|| program("minionsd"));
        let words = [self.launcher, vec![program.into_os_string()]].concat();
        let socket = self.dir.join("minionsd.sock");
        let vms = self.vms.unwrap_or_else(|| self.dir.clone());
        let log = self.log.unwrap_or_else(|| self.dir.join("log"));
        let stderr = if self.is_piped { Stdio::piped() } else { File::create(&log)?.into() };
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["--listen", &self.listen, "--unix-socket"])
            .arg(&socket)
            .arg("--socket-dir")
            .arg(&vms)
            .args(self.arguments)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()?;
        // A new connection for each request: the tests count the daemon's descriptors.
        let http = http().unix_socket(socket).timeout(DEADLINE).pool_max_idle_per_host(0);
        let http = http.build().map_err(io::Error::other)?;
        Ok(Minionsd { child, dir: self.dir, vms, log, http, _own: self.own })
    }
}

impl Minionsd {
    /// Returns the settings of a daemon with a new directory, and without a TCP address.
    #[must_use]
    pub fn builder() -> MinionsdBuilder {
        let mut own = tempfile::Builder::new();
        let own = own.prefix("minionsd-").permissions(Permissions::from_mode(0o755));
        let own = own.tempdir().unwrap();
        MinionsdBuilder {
            program: None,
            launcher: Vec::new(),
            dir: own.path().to_owned(),
            own: Some(own),
            vms: None,
            listen: "none".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            log: None,
            is_piped: false,
        }
    }

    /// Returns the daemon's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the directory of the VMs' sockets.
    #[must_use]
    pub fn vms(&self) -> &Path {
        &self.vms
    }

    /// Returns the path of the Unix socket.
    #[must_use]
    pub fn unix_socket(&self) -> PathBuf {
        self.dir.join("minionsd.sock")
    }

    /// Returns the value of `minionsctl --host` for the Unix socket.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.unix_socket().display())
    }

    /// Returns the URL of the TCP address, as soon as the log contains it.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let log = self.log();
        let (_, address) = log.split_once("serving tcp=Some(")?;
        Some(format!("http://{}", address.split_once(')')?.0))
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the log so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns the pipe of standard error ([`MinionsdBuilder::pipe_log`]).
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Returns the number of open descriptors; `None` if the daemon has ended.
    #[must_use]
    pub fn descriptors(&self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?.count())
    }

    /// Returns the value of a field in `/proc/<pid>/status`, such as `VmHWM`. Sizes are in KiB.
    #[must_use]
    pub fn status_field(&self, name: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().trim_end_matches(" kB").parse().ok()
    }

    /// Returns the exit status if the daemon has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops the daemon with SIGTERM, and returns its exit status.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.end(Signal::TERM)
    }

    /// Sends a signal, and waits until the daemon has ended.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        until("minionsd has ended", || self.ended())
    }

    /// Returns an HTTP client for the Unix socket, which opens a connection for each request.
    #[must_use]
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Sends `GET path`. Returns `None` without an answer within 10 s.
    pub async fn get(&self, path: &str) -> Option<Reply> {
        let request = self.http.get(format!("http://minionsd{path}")).timeout(ANSWER);
        Some(read(request.send().await.ok()?).await)
    }

    /// Waits until `GET path` satisfies `condition`, and returns the reply.
    #[track_caller]
    pub fn until(
        &self,
        path: &str,
        condition: impl Fn(&Reply) -> bool,
    ) -> impl Future<Output = Reply> {
        until_async(path, async move || match self.get(path).await {
            Some(reply) if condition(&reply) => Ok(reply),
            seen => Err(seen),
        })
    }
}

impl Drop for Minionsd {
    fn drop(&mut self) {
        // Both fail only if the daemon has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
