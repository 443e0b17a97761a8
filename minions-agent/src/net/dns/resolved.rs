//! systemd-resolved: a drop-in of resolved.conf(5).

use super::SystemPaths;
use super::resolver::ResolverSettings;
use crate::net::systemd;
use std::io;
use std::path::{Path, PathBuf};

const UNIT: &str = "systemd-resolved.service";

/// Alias below `/etc` that is created when the service is enabled, whatever target wants it.
const ALIAS: &str = "systemd/system/dbus-org.freedesktop.resolve1.service";

/// Line for systemd-resolved's stub, which can also be in a `resolv.conf` that is not a link.
const STUB: &str = "nameserver 127.0.0.53";

/// Reports whether `resolv.conf`, by its link's target or its text, comes from systemd-resolved.
pub(super) fn owns(target: &str, text: &str) -> bool {
    target.contains("systemd/resolve/")
        || target.ends_with("systemd/resolv.conf")
        || text.lines().any(|line| line.trim() == STUB)
}

/// Reports whether systemd-resolved runs. Its socket is removed when it ends.
pub(super) fn is_running(run: &Path) -> bool {
    run.join("systemd/resolve/io.systemd.Resolve").exists()
}

/// Reports whether systemd-resolved is enabled. The agent starts earlier in the boot, so a request may arrive before
/// systemd-resolved runs.
pub(super) fn will_run(system: &SystemPaths) -> bool {
    let etc = system.resolv_conf.parent();
    systemd::is_running(&system.run)
        && etc.is_some_and(|etc| etc.join(ALIAS).symlink_metadata().is_ok())
}

/// Makes systemd-resolved read its files. If it does not run yet, only requests its start, which the boot may delay.
/// Blocks.
pub(super) fn reload(run: &Path) -> io::Result<()> {
    if is_running(run) { systemd::reload_or_restart(UNIT) } else { systemd::start_later(UNIT) }
}

/// Returns the path of the drop-in. Its name sorts last, so that no other drop-in overrides it.
pub(super) fn file(run: &Path) -> PathBuf {
    run.join("systemd/resolved.conf.d/zz-minions.conf")
}

/// Returns the path of the file with the servers that systemd-resolved queries.
pub(super) fn upstream(run: &Path) -> PathBuf {
    run.join("systemd/resolve/resolv.conf")
}

/// Returns the text of the drop-in. An empty assignment clears earlier values. `~.` routes all names to these servers,
/// even if a link has servers.
pub(super) fn text(resolver: &ResolverSettings) -> String {
    let servers: Vec<_> = resolver.servers.iter().map(ToString::to_string).collect();
    let domains: Vec<_> = resolver.search.iter().map(String::as_str).chain(["~."]).collect();
    format!("[Resolve]\nDNS=\nDNS={}\nDomains=\nDomains={}\n", servers.join(" "), domains.join(" "))
}
