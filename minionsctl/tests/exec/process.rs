//! minionsd in a process of its own, which can be killed as no task can: this test program once more,
//! with one test that is the daemon.

use crate::guest::{Ran, ctl, pid};
use rustix::process::{Signal, kill_process};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const DIR: &str = "MINIONS_TEST_DAEMON_DIR";

/// A running daemon. Killed if it is dropped.
pub(crate) struct DaemonProcess {
    child: Child,
    dir: PathBuf,
}

impl DaemonProcess {
    /// Serves `unix://<dir>/minionsd.sock`, where it has found `web-1` ready.
    pub(crate) fn start(dir: &Path) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "process::the_daemon", "--ignored"])
            .env(DIR, dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self { child, dir: dir.to_owned() };
        crate::guest::until("ready", || {
            Ran::of(&mut ctl(&daemon.host(), &["--timeout", "100ms", "wait", "web-1"])).code == 0
        });
        daemon
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}/minionsd.sock", self.dir.display())
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "no test: other tests run it as their daemon"]
async fn the_daemon() {
    let Some(dir) = env::var_os(DIR) else { return };
    let daemon = minionsd::Daemon::bind(testkit::daemon::config(Path::new(&dir))).await.unwrap();
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    daemon
        .serve(async move {
            terminate.recv().await;
        })
        .await;
}
