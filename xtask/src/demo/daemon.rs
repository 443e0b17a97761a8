//! minionsd as a child process.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use testkit::rig::wait_until;

use crate::command::tail;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than the daemon's own grace period for open requests.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running minionsd; killed if dropped before [`DemoDaemon::stop`].
#[derive(Debug)]
pub(crate) struct DemoDaemon {
    child: Child,
    listen: SocketAddr,
    socket: PathBuf,
    log: PathBuf,
}

impl DemoDaemon {
    /// Starts `program` for the VM sockets in `dir`; its own socket and its log go there too.
    ///
    /// The daemon dies with this thread, and a Ctrl-C at the terminal does not reach it directly.
    pub(crate) fn start(program: &Path, listen: SocketAddr, dir: &Path) -> anyhow::Result<Self> {
        let (log, socket) = (dir.join("minionsd.log"), dir.join("minionsd.sock"));
        let out = File::create(&log).context("cannot create the daemon's log")?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(["--listen", &listen.to_string(), "--unix-socket"])
            .arg(&socket)
            .arg("--socket-dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("cannot share the daemon's log")?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .context("cannot start minionsd")?;
        Ok(Self { child, listen, socket, log })
    }

    /// Returns the daemon's TCP address.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Returns the daemon's pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path of the daemon's Unix socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until the daemon accepts connections.
    pub(crate) fn wait_until_listening(&mut self) -> anyhow::Result<()> {
        let (what, listen) = (format!("minionsd listens on {}", self.listen), self.listen);
        let mut ended = None;
        wait_until(&what, START_TIMEOUT, || {
            ended = self.child.try_wait().ok().flatten();
            Ok((ended.is_some() || TcpStream::connect(listen).is_ok()).then_some(()))
        })?;
        match ended {
            Some(status) => {
                bail!("minionsd ended ({status}); its log ends with:\n{}", self.log_tail())
            }
            None => Ok(()),
        }
    }

    /// Sends SIGTERM to the daemon and waits until it has ended.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("cannot stop minionsd")?;
        let status = wait_until("minionsd ends after SIGTERM", STOP_TIMEOUT, || {
            Ok(self.child.try_wait().ok().flatten())
        })?;
        if !status.success() {
            bail!("minionsd ended with {status}; its log ends with:\n{}", self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        tail(&String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()))
    }
}

impl Drop for DemoDaemon {
    fn drop(&mut self) {
        // Both fail only if the daemon has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
