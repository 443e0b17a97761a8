//! The agent in a process of its own, on a hybrid socket, without a VM.
#![expect(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::built::program;

/// Running `minions-agent`. Dropping it kills it.
#[derive(Debug)]
pub struct AgentProcess(Child);

impl AgentProcess {
    /// Starts an agent that listens on `<dir>/<vm>.vsock`, with further arguments. Its log is `<dir>/<vm>.log`.
    ///
    /// # Panics
    ///
    /// Panics if the program is not built or cannot be started.
    #[must_use]
    #[track_caller]
    pub fn start(dir: &Path, vm: &str, arguments: &[&str]) -> Self {
        let socket = dir.join(format!("{vm}.vsock"));
        let log = File::create(dir.join(format!("{vm}.log"))).unwrap();
        let mut agent = Command::new(program("minions-agent"));
        agent.arg("--listen").arg(format!("hybrid:{}", socket.display())).args(arguments);
        let child = agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Self(child.unwrap())
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Stops the process, so that it no longer answers; its connections stay open.
    ///
    /// # Panics
    ///
    /// Panics if the process has ended.
    #[track_caller]
    pub fn stop(&self) {
        kill_process(Pid::from_child(&self.0), Signal::STOP).unwrap();
    }

    /// Returns the number of the process's open descriptors.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // Both fail only if the agent has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
