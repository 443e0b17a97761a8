//! Reload of a systemd service.

use crate::net::tool;
use std::io;

/// Reloads a service, or restarts it if it cannot reload: systemd-resolved before version 256.
pub(super) fn reload_or_restart(unit: &str) -> io::Result<()> {
    if systemctl(&["reload-or-restart", unit]).is_ok() {
        return Ok(());
    }
    // The service may have reached its start limit. If the cause is different, the second attempt returns the error.
    let _ = systemctl(&["reset-failed", unit]);
    systemctl(&["reload-or-restart", unit])
}

/// Queues a start or reload of a service with its present files, without waiting for it.
pub(super) fn start_later(unit: &str) -> io::Result<()> {
    systemctl(&["--no-block", "reload-or-restart", unit])
}

pub(super) fn reload(unit: &str) -> io::Result<()> {
    systemctl(&["reload", unit])
}

/// Runs systemctl. Blocks until it has ended.
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
