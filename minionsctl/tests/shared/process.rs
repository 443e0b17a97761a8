//! minionsd in a separate process, which unlike a task can be killed.

use super::command::{Ran, ctl, pid, until};
use rustix::process::{Signal, kill_process};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running daemon. Dropping it kills the process.
pub(crate) struct DaemonProcess {
    child: Child,
    dir: PathBuf,
}

impl DaemonProcess {
    /// Starts a daemon at `unix://<dir>/minionsd.sock`, and waits until `web-1` is ready.
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
        until("web-1 is ready", || {
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

    /// Ends the daemon with `signal`. KILL ends it as a crash would.
    pub(crate) fn end(&mut self, signal: Signal) {
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

/// Returns the path of minionsd, which Cargo builds in the same directory. Cargo tells tests only the paths of the
/// programs of their own package.
fn binary() -> PathBuf {
    let tests = env::current_exe().unwrap();
    let binary = tests.parent().and_then(Path::parent).unwrap().join("minionsd");
    assert!(binary.is_file(), "{} is missing: run `cargo build -p minionsd`", binary.display());
    binary
}
