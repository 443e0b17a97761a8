//! The real agent as a process, on a hybrid socket in a temporary directory.
#![allow(dead_code, reason = "each test crate uses its part of this module")]

pub(crate) mod channel;
pub(crate) mod file;

use minions_proto::AgentError;
use minions_proto::connection::{Connection, ExchangeError};
use minions_proto::hybrid;
use minions_proto::message::Call;
use minions_proto::version::AGENT_PORT;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// Deadline for an event that happens soon, even on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Interval between two checks for an event.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_minions-agent");

/// Running agent; killed on drop.
#[derive(Debug)]
pub(crate) struct RunningAgent {
    child: Child,
    dir: TempDir,
}

impl RunningAgent {
    pub(crate) async fn start() -> Self {
        Self::with_flags(&[]).await
    }

    pub(crate) async fn with_flags(flags: &[&str]) -> Self {
        Self::with(|listen| {
            let mut command = agent_command(listen);
            command.args(flags);
            command
        })
        .await
    }

    /// Starts the command that `command` returns for the `--listen` value; it must become the agent.
    pub(crate) async fn with(command: impl FnOnce(&str) -> Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let child = command(&listen_value(&socket)).spawn().unwrap();
        let mut agent = Self { child, dir };
        until("the agent listens", async || {
            if let Some(status) = agent.child.try_wait().unwrap() {
                panic!("the agent ended instead of listening: {status}");
            }
            UnixStream::connect(&socket).await.ok()
        })
        .await;
        agent
    }

    /// Kills the agent and starts another one on the same socket.
    pub(crate) async fn crash(&mut self) {
        self.restart(agent_command(&listen_value(&self.socket()))).await;
    }

    /// Kills the agent and starts `next`, an agent on the same socket.
    pub(crate) async fn restart(&mut self, mut next: Command) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let socket = self.socket();
        self.child = next.spawn().unwrap();
        until("the next agent listens", async || UnixStream::connect(&socket).await.ok()).await;
    }

    /// Kills the agent and starts the next one. Returns the killed agent, which stays a zombie until it is waited for.
    pub(crate) async fn crash_unnoticed(&mut self) -> Child {
        self.child.kill().unwrap();
        let stat = format!("/proc/{}/stat", self.child.id());
        let is_zombie = async || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')).then_some(())
        };
        until("the agent is a zombie", is_zombie).await;
        let socket = self.socket();
        // Its other threads may end a moment later.
        until("its socket is closed", async || UnixStream::connect(&socket).await.err()).await;
        let next = agent_command(&listen_value(&socket)).spawn().unwrap();
        let ended = std::mem::replace(&mut self.child, next);
        until("the next agent listens", async || UnixStream::connect(&socket).await.ok()).await;
        ended
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// Returns the agent's temporary directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) async fn stream(&self) -> UnixStream {
        hybrid::dial(&self.socket(), AGENT_PORT, SOON).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection<UnixStream> {
        Connection::new(self.stream().await)
    }

    /// Sends one request on a new connection.
    pub(crate) async fn call<C: Call>(&self, call: &C) -> Result<C::Reply, AgentError> {
        answer(&mut self.connect().await, call).await
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn listen_value(socket: &Path) -> String {
    format!("hybrid:{}", socket.display())
}

/// Copies the agent's program to `path`, for a user who cannot read the original. Another process copies it: this one could
/// not start the copy while a thread of another test forks, whose child has the open file until it executes a program.
pub(crate) fn copy_program(path: &Path) {
    assert!(Command::new("cp").arg(BINARY).arg(path).status().unwrap().success());
}

pub(crate) fn agent_command(listen: &str) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["--log-level", "error", "--listen", listen]);
    command
}

/// Sends SIGTERM to an agent and waits until it has ended.
pub(crate) async fn terminate(agent: &mut RunningAgent) -> ExitStatus {
    let pid = Pid::from_child(agent.child());
    kill_process(pid, Signal::TERM).unwrap();
    until("the agent ends", async || agent.child().try_wait().unwrap()).await
}

/// Sends one request; anything except a reply or a refusal fails the test.
pub(crate) async fn answer<C: Call>(
    connection: &mut Connection<UnixStream>,
    call: &C,
) -> Result<C::Reply, AgentError> {
    match connection.call(call, Instant::now() + SOON).await {
        Ok(reply) => Ok(reply),
        Err(ExchangeError::Agent(error)) => Err(error),
        Err(other) => panic!("no reply: {other:?}"),
    }
}

/// Calls `look` until it returns a value; fails the test at a deadline.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        sleep(LOOK).await;
    }
}

/// Returns the processes with `argument` among their arguments. Zombies have no arguments and do not count.
pub(crate) fn processes_with(argument: &str) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: i32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        line.split(|byte| *byte == 0).any(|one| one == argument.as_bytes()).then_some(pid)
    });
    numbers.collect()
}

/// Kills one process that a test has started.
pub(crate) fn kill(pid: i32) {
    // It may have ended already.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Suspends one process that a test has started (SIGSTOP).
pub(crate) fn stop(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
}
