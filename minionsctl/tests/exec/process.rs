//! minionsd as a user runs it: in a process of its own, which can be killed as no task can.

use crate::guest::{Ran, ctl, pid};
use rustix::process::{Signal, kill_process};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running daemon. Killed if it is dropped.
pub(crate) struct DaemonProcess {
    child: Child,
    dir: PathBuf,
}

impl DaemonProcess {
    /// Serves `unix://<dir>/minionsd.sock`, where it has found `web-1` ready.
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("minionsd.sock");
        let child = Command::new(binary())
            .args(["--listen", "127.0.0.1:0", "--socket-dir"])
            .arg(dir)
            .arg("--unix-socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self { child, dir: dir.to_owned() };
        crate::guest::until("ready", || {
            Ran::of(&mut ctl(&daemon.host(), &["--timeout", "100ms", "wait", "web-1"])).code == 0
        });
        daemon
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}/minionsd.sock", self.dir.display())
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in this way.
    pub(crate) fn end(mut self, signal: Signal) {
        kill_process(pid(&self.child), signal).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo builds a workspace's programs side by side; it names only a package's own to its tests.
fn binary() -> PathBuf {
    let tests = env::current_exe().unwrap();
    let binary = tests.parent().and_then(Path::parent).unwrap().join("minionsd");
    assert!(binary.is_file(), "{} is missing: run `cargo build -p minionsd`", binary.display());
    binary
}
