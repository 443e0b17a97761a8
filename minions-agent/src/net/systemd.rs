//! systemd as the init: its presence, and reloads of its services.

use super::tool;
use std::io;
use std::path::Path;

/// Reports whether systemd is the init, like `sd_booted(3)`.
pub(in crate::net) fn is_running(run: &Path) -> bool {
    run.join("systemd/system").is_dir()
}

/// Reloads a service, or restarts it if it cannot reload: systemd-resolved before version 256.
pub(in crate::net) fn reload_or_restart(unit: &str) -> io::Result<()> {
    if systemctl(&["reload-or-restart", unit]).is_ok() {
        return Ok(());
    }
    // The service may have reached its start limit. If the cause is different, the second attempt returns the error.
    let _ = systemctl(&["reset-failed", unit]);
    systemctl(&["reload-or-restart", unit])
}

/// Queues a start or reload of a service with its present files, without waiting for it.
pub(in crate::net) fn start_later(unit: &str) -> io::Result<()> {
    systemctl(&["--no-block", "reload-or-restart", unit])
}

pub(in crate::net) fn reload(unit: &str) -> io::Result<()> {
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
