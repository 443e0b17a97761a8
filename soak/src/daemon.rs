//! minionsd as a separate process, and the resources that it uses.

use crate::journal::Journal;
use crate::{Options, SoakError};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// Running daemon; killed when dropped.
#[derive(Debug)]
pub(super) struct DaemonProcess {
    child: Child,
    dir: TempDir,
    log: PathBuf,
    ended: bool,
}

/// Resources of the daemon at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) rss_kib: u64,
    pub(super) fds: u64,
    pub(super) threads: u64,
}

impl DaemonProcess {
    /// Starts the daemon, and waits until it accepts connections.
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
            // Audit entries for every program would be the largest part of the work.
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
        let deadline = Instant::now() + testkit::daemon::DEADLINE;
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

    /// Returns the directory of the VMs' sockets.
    pub(super) fn vms(&self) -> PathBuf {
        self.dir.path().join("vms")
    }

    pub(super) fn http(&self) -> Result<reqwest::Client, SoakError> {
        let http = testkit::daemon::http().unix_socket(self.dir.path().join("minionsd.sock"));
        Ok(http.timeout(testkit::daemon::DEADLINE).build()?)
    }

    /// Returns the current resources of the daemon, and records a violation if it has ended.
    pub(super) fn cost(&mut self, journal: &Journal) -> Option<Cost> {
        if let Ok(Some(status)) = self.child.try_wait()
            && !std::mem::replace(&mut self.ended, true)
        {
            journal.violation(format!("minionsd ended: {status}"));
        }
        cost(Path::new(&format!("/proc/{}", self.child.id())))
    }

    /// Records a violation for each panic in the log; other complaints are allowed.
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
        // Both fail only if the daemon has ended and been waited for.
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
