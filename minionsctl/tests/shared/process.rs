//! minionsd in a separate process, which unlike a task can be killed.

use std::path::Path;
use testkit::minionsd::Minionsd;
use testkit::wait::until;

use super::command::{Ran, ctl};

/// Starts a daemon at `unix://<dir>/minionsd.sock`, and waits until `web-1` is ready.
pub(crate) fn start(dir: &Path) -> Minionsd {
    let daemon = Minionsd::builder().dir(dir).listen("127.0.0.1:0").start();
    let wait = ["--timeout", "100ms", "wait", "web-1"];
    until("web-1 is ready", || Ran::of(&mut ctl(&daemon.host(), &wait)).code == 0);
    daemon
}
