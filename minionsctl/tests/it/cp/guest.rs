//! A daemon, agents as processes, and a directory of this machine for the files of guests and host.

use crate::shared::command::{Ran, ctl};
use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use testkit::agent_process::AgentProcess;
use testkit::daemon::TestDaemon;

/// A daemon with VMs. Their files are those of this machine.
pub(super) struct CopyGuest {
    pub(super) daemon: TestDaemon,
    pub(super) agents: Vec<AgentProcess>,
    dir: TempDir,
}

impl CopyGuest {
    pub(super) async fn start() -> Self {
        Self::with(&["web-1"]).await
    }

    pub(super) async fn with(vms: &[&str]) -> Self {
        let daemon = TestDaemon::start().await;
        let agents = vms.iter().map(|vm| AgentProcess::start(daemon.sockets(), vm, &[])).collect();
        for vm in vms {
            daemon.until_state(vm, "ready").await;
        }
        let open = Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().permissions(open).tempdir().unwrap();
        Self { daemon, agents, dir }
    }

    /// Returns the path of a file in the directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns `web-1:PATH` for a file of the directory.
    pub(super) fn of_vm(&self, name: &str) -> String {
        format!("web-1:{}", self.text(name))
    }

    /// Returns the path of a file in the directory, as text.
    pub(super) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Returns a command `cp` in the directory.
    pub(super) fn cp(&self, args: &[&str]) -> Command {
        let mut command = ctl(&self.daemon.host(), &[&["cp"], args].concat());
        command.current_dir(self.dir.path());
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.cp(args))
    }

    /// Creates a directory, with its parents.
    pub(super) fn mkdir(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    /// Creates a file, with its parents.
    pub(super) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[track_caller]
    pub(super) fn assert_content(&self, name: &str, content: &str) {
        assert_eq!(fs::read_to_string(self.path(name)).ok().as_deref(), Some(content), "{name}");
    }

    /// Returns the names in a directory, sorted.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        names(&self.path(name))
    }
}

/// Returns the names in a directory, sorted.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
