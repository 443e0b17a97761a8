//! QEMU's guest agent on a Unix socket, which works without a VM.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::programs::background::BackgroundProgram;

/// Path at which Debian installs it.
pub(crate) const PROGRAM: &str = "/usr/sbin/qemu-ga";

/// The running agent.
#[derive(Debug)]
pub(crate) struct QemuGa {
    pub(crate) program: BackgroundProgram,
    socket: PathBuf,
}

impl QemuGa {
    /// Starts the agent and returns at once; all its files are in `dir`.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        let socket = dir.join("qga.sock");
        let mut command = Command::new(PROGRAM);
        command.args(["-m", "unix-listen", "-p"]).arg(&socket).arg("-t").arg(dir);
        command.arg("-f").arg(dir.join("qga.pid"));
        let program = BackgroundProgram::spawn(&command, &dir.join("qga.log"))?;
        Ok(Self { program, socket })
    }

    /// Connects its only client; fails if the agent does not listen yet.
    pub(crate) fn connect(&self) -> anyhow::Result<QemuGaClient> {
        let stream = UnixStream::connect(&self.socket).context("cannot connect to qemu-ga")?;
        Ok(QemuGaClient { stream: BufReader::new(stream) })
    }

    /// Connects its only client as soon as the agent listens.
    pub(crate) fn connect_soon(&mut self) -> anyhow::Result<QemuGaClient> {
        let socket = self.socket.clone();
        let connected = || UnixStream::connect(&socket).ok();
        let stream = self.program.wait_until("qemu-ga listens", connected)?;
        Ok(QemuGaClient { stream: BufReader::new(stream) })
    }
}

/// Connection to the agent; qemu-ga serves only one at a time.
#[derive(Debug)]
pub(crate) struct QemuGaClient {
    stream: BufReader<UnixStream>,
}

impl QemuGaClient {
    pub(crate) fn ping(&mut self) -> anyhow::Result<()> {
        self.ask(&json!({ "execute": "guest-ping" })).map(drop)
    }

    /// Runs `path` and polls for its end without a pause.
    pub(crate) fn exec(&mut self, path: &str) -> anyhow::Result<()> {
        let arguments = json!({ "path": path, "capture-output": true });
        let started = self.ask(&json!({ "execute": "guest-exec", "arguments": arguments }))?;
        let status = json!({
            "execute": "guest-exec-status",
            "arguments": { "pid": started["pid"] },
        });
        while self.ask(&status)?["exited"] != true {}
        Ok(())
    }

    fn ask(&mut self, request: &Value) -> anyhow::Result<Value> {
        writeln!(self.stream.get_mut(), "{request}")?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let mut reply: Value =
            serde_json::from_str(&line).context("cannot parse qemu-ga's answer")?;
        match reply.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("qemu-ga answered {line}"),
        }
    }
}
