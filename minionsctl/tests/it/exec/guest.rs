//! A daemon with a VM for `minionsctl`.

use crate::shared::command::{Ran, ctl};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

/// A daemon, the VM `web-1`, and a directory for files of its programs, which run on this machine.
pub(crate) struct Guest {
    pub(crate) daemon: TestDaemon,
    pub(crate) vm: FakeVmm,
    dir: TempDir,
}

impl Guest {
    pub(crate) async fn start() -> Self {
        let (daemon, vm) = TestDaemon::with_vm().await;
        Self { daemon, vm, dir: tempfile::tempdir().unwrap() }
    }

    /// Starts a daemon whose programs wait for a lost client for this time.
    pub(crate) async fn with_grace(grace: Duration) -> Self {
        let daemon = TestDaemon::with(|config| config.reattach_grace = Some(grace)).await;
        let behaviour = Behaviour::Agent(agent().unwrap());
        let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
        daemon.until_state("web-1", "ready").await;
        Self { daemon, vm, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Creates a named pipe. A program that opens it for reading blocks until the test opens it too.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.file(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    /// Returns a command for `minionsctl` with this daemon, without input.
    pub(crate) fn ctl(&self, args: &[&str]) -> Command {
        ctl(&self.daemon.host(), args)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.ctl(args))
    }
}

/// Opens a named pipe from which a program reads, and writes `text` to it.
pub(crate) fn feed(fifo: &Path, text: &str) {
    let mut pipe = std::fs::OpenOptions::new().write(true).open(fifo).unwrap();
    pipe.write_all(text.as_bytes()).unwrap();
}
