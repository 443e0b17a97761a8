//! A service that reads its files again.

use std::io;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For a restart on a busy guest.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often to look whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// Those that can't reload start anew: systemd-resolved before version 256.
pub(super) fn reload_or_restart(unit: &str) -> io::Result<()> {
    if systemctl(&["reload-or-restart", unit]).is_ok() {
        return Ok(());
    }
    // Started too often in a short time, perhaps. If that isn't it, the same will be said again.
    let _ = systemctl(&["reset-failed", unit]);
    systemctl(&["reload-or-restart", unit])
}

/// Sees to it that it starts with its files as they are now, and doesn't wait for that.
pub(super) fn start_later(unit: &str) -> io::Result<()> {
    systemctl(&["--no-block", "reload-or-restart", unit])
}

pub(super) fn reload(unit: &str) -> io::Result<()> {
    systemctl(&["reload", unit])
}

/// Blocks until it is done; one that isn't in time is ended.
fn systemctl(args: &[&str]) -> io::Result<()> {
    let mut child = Command::new("systemctl")
        .arg("--no-ask-password")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                let what = args.join(" ");
                return Err(io::Error::other(format!("systemctl {what} ended with {status}")));
            }
            None if Instant::now() < deadline => sleep(LOOK),
            None => {
                // It may have ended just now.
                let _ = child.kill();
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}
