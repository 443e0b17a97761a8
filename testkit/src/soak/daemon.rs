//! minionsd as a process of its own, and what it costs.

use super::journal::Journal;
use super::{Options, SoakError};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// Running; killed when dropped.
#[derive(Debug)]
pub(super) struct DaemonProcess {
    child: Child,
    dir: TempDir,
    log: PathBuf,
    ended: bool,
}

/// What it has at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) rss_kib: u64,
    pub(super) fds: u64,
    pub(super) threads: u64,
}

impl DaemonProcess {
    /// Starts it, and waits until it takes connections.
    pub(super) async fn start(options: &Options) -> Result<Self, SoakError> {
        let dir = tempfile::Builder::new().prefix("soak-").tempdir();
        let dir = dir.map_err(SoakError::io("no directory for sockets"))?;
        let vms = dir.path().join("vms");
        fs::create_dir(&vms)
            .and_then(|()| fs::set_permissions(&vms, Permissions::from_mode(0o755)))
            .map_err(SoakError::io("no directory for sockets"))?;
        let log = options.out.join("minionsd.log");
        let stderr = File::create(&log).map_err(SoakError::io("no log file"))?;
        let child = Command::new(&options.minionsd)
            .args(["--listen", "none", "--unix-socket"])
            .arg(dir.path().join("minionsd.sock"))
            .arg("--socket-dir")
            .arg(&vms)
            // An audit line for every program would be the largest part of the work.
            .args(["--audit-log", "/dev/null"])
            .env("MINIONS_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(SoakError::io(format!("can't start {}", options.minionsd.display())))?;
        let daemon = Self { child, dir, log, ended: false };
        daemon.listens().await?;
        Ok(daemon)
    }

    async fn listens(&self) -> Result<(), SoakError> {
        let deadline = Instant::now() + crate::daemon::DEADLINE;
        loop {
            match UnixStream::connect(self.dir.path().join("minionsd.sock")).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(SoakError::io("minionsd does not listen")(error));
                }
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Where the VMs' sockets go.
    pub(super) fn vms(&self) -> PathBuf {
        self.dir.path().join("vms")
    }

    pub(super) fn http(&self) -> Result<reqwest::Client, SoakError> {
        let http = crate::daemon::http().unix_socket(self.dir.path().join("minionsd.sock"));
        Ok(http.timeout(crate::daemon::DEADLINE).build()?)
    }

    /// What it costs now; a violation if it is no more.
    pub(super) fn cost(&mut self, journal: &Journal) -> Option<Cost> {
        if let Ok(Some(status)) = self.child.try_wait()
            && !std::mem::replace(&mut self.ended, true)
        {
            journal.violation(format!("minionsd ended: {status}"));
        }
        cost(Path::new(&format!("/proc/{}", self.child.id())))
    }

    /// It may complain, but not panic.
    pub(super) fn check_log(&self, journal: &Journal) {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        for line in log.lines().filter(|line| line.contains("panicked")).take(5) {
            journal.violation(format!("minionsd said: {line}"));
        }
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        // Both fail only if it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cost(process: &Path) -> Option<Cost> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok()
    };
    let fds = fs::read_dir(process.join("fd")).ok()?.count() as u64;
    Some(Cost { rss_kib: field("VmRSS")?, fds, threads: field("Threads")? })
}
