//! The environment of a benchmark: a directory with VM sockets, and a minionsd that serves it.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use tempfile::TempDir;

use crate::{
    clients::rest::RestClient,
    programs::{MeasuredPrograms, background::BackgroundProgram, free_address},
};

/// VM that calls are sent to. Others are `vm-2`, `vm-3`, ….
pub(crate) const VM: &str = "vm-1";

/// Creates a directory from which minionsd accepts sockets: not writable by others, and with a short path.
pub(crate) fn directory() -> anyhow::Result<TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("minions-bench-")
        .tempdir()
        .context("cannot create a directory for the sockets")?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Creates a directory like [`directory`], in memory: creating a file on a disk can take longer than copying it.
pub(crate) fn directory_in_memory() -> anyhow::Result<TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("minions-bench-")
        .tempdir_in("/dev/shm")
        .context("cannot create a directory in /dev/shm")?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Starts a fake VMM with `count` VMs in `dir`, whose agents cost next to nothing.
pub(crate) fn responder(
    programs: &MeasuredPrograms,
    dir: &Path,
    count: u32,
) -> anyhow::Result<BackgroundProgram> {
    let mut command = Command::new(&programs.bench);
    command.arg("responder").arg(dir).arg(count.to_string());
    let mut responder = BackgroundProgram::spawn(&command, &dir.join("responder.log"))?;
    let last = dir.join(format!("vm-{count}.vsock"));
    responder.wait_until("all VM sockets are there", || last.exists().then_some(()))?;
    Ok(responder)
}

/// Starts the agent outside of any VM, and waits until it listens: it handles CONNECT and OK in place of a VMM.
pub(crate) fn agent(programs: &MeasuredPrograms, dir: &Path) -> anyhow::Result<BackgroundProgram> {
    let socket = vm_socket(dir);
    let mut agent = start_agent(programs, dir)?;
    agent.wait_until("the agent listens", || socket.exists().then_some(()))?;
    Ok(agent)
}

/// Starts the agent like [`agent`], but returns at once.
pub(crate) fn start_agent(
    programs: &MeasuredPrograms,
    dir: &Path,
) -> anyhow::Result<BackgroundProgram> {
    let mut command = Command::new(&programs.agent);
    command.arg("--listen").arg(format!("hybrid:{}", vm_socket(dir).display()));
    BackgroundProgram::spawn(&command, &dir.join("agent.log"))
}

/// Returns the path of the socket of [`VM`] in `dir`.
pub(crate) fn vm_socket(dir: &Path) -> PathBuf {
    dir.join(format!("{VM}.vsock"))
}

/// Running minionsd.
#[derive(Debug)]
pub(crate) struct MeasuredDaemon {
    pub(crate) program: BackgroundProgram,
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
}

impl MeasuredDaemon {
    /// Starts the daemon with the sockets in `dir`.
    pub(crate) fn start(programs: &MeasuredPrograms, dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(programs, dir, &[])
    }

    /// Starts the daemon with the sockets in `dir`, and with more options.
    pub(crate) fn start_with(
        programs: &MeasuredPrograms,
        dir: &Path,
        options: &[&OsStr],
    ) -> anyhow::Result<Self> {
        let (address, socket) = (free_address()?, dir.join("minionsd.sock"));
        let mut command = Command::new(&programs.minionsd);
        command.args(["--listen", &address.to_string(), "--unix-socket"]).arg(&socket);
        command.arg("--socket-dir").arg(dir).args(options);
        let program = BackgroundProgram::spawn(&command, &dir.join("minionsd.log"))?;
        Ok(Self { program, address, socket })
    }

    /// Waits until `count` VMs are ready.
    pub(crate) fn wait_until_ready(&mut self, count: u32) -> anyhow::Result<()> {
        let rest = RestClient::new(&self.socket)?;
        self.program.wait_until(&format!("{count} VMs are ready"), || {
            let vms = rest.get("/vms").ok()?;
            let vms = vms["vms"].as_array()?.iter();
            let ready = vms.filter(|vm| vm["state"] == "ready").count();
            (ready == usize::try_from(count).ok()?).then_some(())
        })
    }

    /// Starts the daemon, and waits until its `count` VMs are ready.
    pub(crate) fn ready(
        programs: &MeasuredPrograms,
        dir: &Path,
        count: u32,
    ) -> anyhow::Result<Self> {
        let mut daemon = Self::start(programs, dir)?;
        daemon.wait_until_ready(count)?;
        Ok(daemon)
    }
}
