//! minionsd as a separate process, and the resources that it uses.

use crate::error::SoakError;
use crate::journal::Journal;
use crate::options::SoakOptions;
use std::path::Path;
use testkit::minionsd::Minionsd;
use testkit::wait::until_async;

/// Running daemon; killed when dropped.
#[derive(Debug)]
pub(super) struct DaemonProcess {
    process: Minionsd,
    ended: bool,
}

/// Resources of the daemon at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ResourceUsage {
    pub(super) rss_kib: u64,
    pub(super) fds: u64,
    pub(super) threads: u64,
}

impl DaemonProcess {
    /// Starts the daemon, and waits until it accepts connections.
    pub(super) async fn start(options: &SoakOptions) -> Result<Self, SoakError> {
        let process = Minionsd::builder()
            .program(&options.minionsd)
            .log(&options.out.join("minionsd.log"))
            // Writing an audit entry for every program to the log would be most of the work.
            .args(["--audit-log", "/dev/null"])
            .env("MINIONS_LOG", "warn")
            .try_spawn()
            .map_err(SoakError::io(format!("cannot start {}", options.minionsd.display())))?;
        until_async("minionsd answers", async || process.get("/healthz").await).await;
        Ok(Self { process, ended: false })
    }

    /// Returns the directory of the VMs' sockets.
    pub(super) fn vms(&self) -> &Path {
        self.process.vms()
    }

    pub(super) fn http(&self) -> Result<reqwest::Client, SoakError> {
        let http = testkit::daemon::http().unix_socket(self.process.unix_socket());
        Ok(http.timeout(testkit::daemon::DEADLINE).build()?)
    }

    /// Returns the current resources of the daemon, and records a violation if it has ended.
    pub(super) fn cost(&mut self, journal: &Journal) -> Option<ResourceUsage> {
        if let Some(status) = self.process.ended()
            && !std::mem::replace(&mut self.ended, true)
        {
            journal.violation(format!("minionsd ended: {status}"));
        }
        Some(ResourceUsage {
            rss_kib: self.process.status_field("VmRSS")?,
            fds: self.process.descriptors()? as u64,
            threads: self.process.status_field("Threads")?,
        })
    }

    /// Records a violation for each panic in the log. Other warnings and errors are permitted.
    pub(super) fn check_log(&self, journal: &Journal) {
        let log = self.process.log();
        for line in log.lines().filter(|line| line.contains("panicked")).take(5) {
            journal.violation(format!("panic in the log of minionsd: {line}"));
        }
    }
}
