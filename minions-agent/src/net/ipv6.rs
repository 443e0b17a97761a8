//! IPv6 settings of an interface, in `/proc/sys`.

use super::desired::DesiredNetwork;
use super::error::NetworkError;
use super::link::Link;
use ipnet::IpNet;
use rustix::fs::{Access, access};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const SETTINGS: &str = "/proc/sys/net/ipv6/conf";

/// Reads `accept_ra`: whether router advertisements may add addresses and default routes. `None` on a kernel without
/// IPv6.
pub(super) fn accept_ra(link: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(file(link, "accept_ra")) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reports whether `accept_ra` can be written; in a container `/proc/sys` is often read-only.
pub(super) fn is_writable(link: &str) -> bool {
    access(file(link, "accept_ra"), Access::WRITE_OK).is_ok()
}

/// Sets `accept_ra` if it has another value. Does nothing on a kernel without IPv6.
pub(super) fn set_accept_ra(link: &str, value: &str) -> io::Result<()> {
    match accept_ra(link)? {
        Some(present) if present != value => fs::write(file(link, "accept_ra"), value),
        _ => Ok(()),
    }
}

/// Refuses IPv6 settings for an interface on which IPv6 is off.
pub(super) fn check(desired: &DesiredNetwork, links: &[Link]) -> Result<(), NetworkError> {
    let addresses = desired.links.iter().filter(|one| one.has_ipv6()).map(|one| one.link.index);
    let routes = desired.routes.iter().filter(|route| matches!(route.to, IpNet::V6(_)));
    for index in addresses.chain(routes.map(|route| route.link)) {
        let Some(link) = links.iter().find(|link| link.index == index) else { continue };
        if let Some(reason) = off(&link.name) {
            return Err(NetworkError::NoIpv6 { link: link.name.clone(), reason });
        }
    }
    Ok(())
}

/// Returns the reason why an interface has no IPv6, or `None` if it has.
fn off(link: &str) -> Option<String> {
    if !Path::new(SETTINGS).exists() {
        return Some("the kernel has no IPv6".to_owned());
    }
    let value = fs::read_to_string(file(link, "disable_ipv6")).ok()?;
    (value.trim_end() == "1").then(|| format!("net.ipv6.conf.{link}.disable_ipv6 is 1"))
}

/// Returns the path of a setting. The kernel does not allow a slash in the name of an interface.
fn file(link: &str, setting: &str) -> PathBuf {
    Path::new(SETTINGS).join(link).join(setting)
}
