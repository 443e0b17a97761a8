//! systemd-resolved: a drop-in of resolved.conf(5).

use minions_proto::message::DnsPlan;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

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
pub(super) fn text(plan: &DnsPlan) -> String {
    let servers: Vec<_> = plan.servers.iter().map(IpAddr::to_string).collect();
    let domains: Vec<_> = plan.search.iter().map(String::as_str).chain(["~."]).collect();
    format!("[Resolve]\nDNS=\nDNS={}\nDomains=\nDomains={}\n", servers.join(" "), domains.join(" "))
}
