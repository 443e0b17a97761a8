//! A service that reads its files again.

use crate::net::tool;
use std::io;

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

/// Blocks until it has ended.
fn systemctl(args: &[&str]) -> io::Result<()> {
    let all: Vec<_> = ["--no-ask-password"].iter().chain(args).copied().collect();
    match tool::run("systemctl", &all)? {
        (status, _) if status.success() => Ok(()),
        (status, _) => {
            let what = args.join(" ");
            Err(io::Error::other(format!("systemctl {what} ended with {status}")))
        }
    }
}
