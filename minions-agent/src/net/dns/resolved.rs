//! systemd-resolved: a drop-in of resolved.conf(5).

use super::{Places, Resolver, service};
use crate::net::networkd;
use std::io;
use std::path::{Path, PathBuf};

const UNIT: &str = "systemd-resolved.service";

/// What enabling it makes, whatever target wants it.
const ALIAS: &str = "systemd/system/dbus-org.freedesktop.resolve1.service";

/// Its own stub, which it also offers where `resolv.conf` is no link.
const STUB: &str = "nameserver 127.0.0.53";

/// Whether `resolv.conf`, by its link's target or its text, is its.
pub(super) fn owns(target: &str, text: &str) -> bool {
    target.contains("systemd/resolve/")
        || target.ends_with("systemd/resolv.conf")
        || text.lines().any(|line| line.trim() == STUB)
}

/// Its socket goes with it.
pub(super) fn is_running(run: &Path) -> bool {
    run.join("systemd/resolve/io.systemd.Resolve").exists()
}

/// Whether it is enabled: the agent is up before it, and may be asked before it runs.
pub(super) fn will_run(places: &Places) -> bool {
    let etc = places.resolv_conf.parent();
    networkd::systemd_runs(&places.run)
        && etc.is_some_and(|etc| etc.join(ALIAS).symlink_metadata().is_ok())
}

/// Has it read its files. One that doesn't run yet reads them when it starts, which may be as late as the
/// boot likes. Blocks.
pub(super) fn reload(run: &Path) -> io::Result<()> {
    if is_running(run) { service::reload_or_restart(UNIT) } else { service::start_later(UNIT) }
}

/// By name the last of all drop-ins, so that nothing comes behind it.
pub(super) fn file(run: &Path) -> PathBuf {
    run.join("systemd/resolved.conf.d/zz-minions.conf")
}

/// What it asks itself.
pub(super) fn upstream(run: &Path) -> PathBuf {
    run.join("systemd/resolve/resolv.conf")
}

/// An empty assignment drops what came before. `~.` sends every name to these servers, whatever
/// servers a link has of its own.
pub(super) fn text(resolver: &Resolver) -> String {
    let servers: Vec<_> = resolver.servers.iter().map(ToString::to_string).collect();
    let domains: Vec<_> = resolver.search.iter().map(String::as_str).chain(["~."]).collect();
    format!("[Resolve]\nDNS=\nDNS={}\nDomains=\nDomains={}\n", servers.join(" "), domains.join(" "))
}
