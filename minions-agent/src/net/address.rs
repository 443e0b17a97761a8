//! Addresses of an interface.

use super::link::LinkIndex;
use super::rtnl::{Rtnl, StepError};
use crate::netlink::RequestFlags;
use crate::netlink::address::{self, AddressMessage, flags};
use minions_proto::cidr::InterfaceAddress;
use rustix::io::Errno;
use std::net::IpAddr;

/// Duplicate address detection for an added address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DuplicateDetection {
    /// Detection disabled: the address is usable at once. The host gives each guest its own address, and detection
    /// would keep an IPv6 address unusable for a second after the reply.
    Ignore,
    /// An IPv6 address becomes usable once the kernel has found no other host that uses it.
    Detect,
}

/// Makes `wanted` the only addresses of `link`, in both families. IPv6 link-local addresses stay: the
/// kernel creates them, and neighbour discovery needs them.
pub(super) async fn replace(
    rtnl: &Rtnl,
    link: LinkIndex,
    wanted: &[InterfaceAddress],
    duplicates: DuplicateDetection,
) -> Result<(), StepError> {
    let present = list(rtnl, link).await?;
    let bars_any = |address: &AddressMessage| wanted.iter().any(|one| bars(address, one));
    let (conflicting, other): (Vec<_>, Vec<_>) =
        superfluous(&present, wanted).cloned().partition(|address| bars_any(address));
    for address in conflicting {
        delete(rtnl, &address).await?;
    }
    // New addresses first, then removal of old ones, so that the interface always has an address if possible.
    add_missing(rtnl, link, wanted, duplicates).await?;
    for address in other {
        delete(rtnl, &address).await?;
    }
    // The kernel removes the secondaries of an IPv4 address together with it: all addresses of its subnet that
    // were added later. New addresses can be among them.
    add_missing(rtnl, link, wanted, duplicates).await
}

pub(super) async fn list(rtnl: &Rtnl, link: LinkIndex) -> Result<Vec<AddressMessage>, StepError> {
    let mut addresses = list_all(rtnl).await?;
    addresses.retain(|address| address.index == link);
    Ok(addresses)
}

/// Returns the addresses of all interfaces.
pub(super) async fn list_all(rtnl: &Rtnl) -> Result<Vec<AddressMessage>, StepError> {
    let (step, all) = ("listing the addresses", AddressMessage::request_all());
    rtnl.read(step, address::GET, RequestFlags::DUMP, &all, AddressMessage::parse).await
}

/// Returns the addresses that [`replace`] removes.
pub(super) fn superfluous<'a>(
    present: &'a [AddressMessage],
    wanted: &[InterfaceAddress],
) -> impl Iterator<Item = &'a AddressMessage> {
    present.iter().filter(|address| {
        !wanted.iter().any(|one| is(address, one))
            && (!is_link_local_v6(address) || wanted.iter().any(|one| bars(address, one)))
    })
}

/// Reports whether `wanted` is present exactly as [`add`] would make it, without a lifetime.
pub(super) fn is_present(present: &[AddressMessage], wanted: &InterfaceAddress) -> bool {
    present.iter().any(|address| is(address, wanted) && is_plain(address))
}

async fn add_missing(
    rtnl: &Rtnl,
    link: LinkIndex,
    wanted: &[InterfaceAddress],
    duplicates: DuplicateDetection,
) -> Result<(), StepError> {
    let present = list(rtnl, link).await?;
    let missing: Vec<_> = wanted.iter().filter(|one| !is_present(&present, one)).collect();
    // The kernel lists the newest IPv6 address first, but the oldest IPv4 address first.
    let v4 = missing.iter().filter(|one| one.address().is_ipv4());
    let v6 = missing.iter().rev().filter(|one| one.address().is_ipv6());
    for one in v4.chain(v6) {
        add(rtnl, link, one, duplicates).await?;
    }
    Ok(())
}

/// Adds an address, or makes it permanent if it is present with a lifetime (for example from DHCP).
async fn add(
    rtnl: &Rtnl,
    link: LinkIndex,
    wanted: &InterfaceAddress,
    duplicates: DuplicateDetection,
) -> Result<(), StepError> {
    let mut message = AddressMessage::of(link, wanted.address(), wanted.prefix_len());
    if wanted.address().is_ipv6() && duplicates == DuplicateDetection::Ignore {
        message.attributes.push_u32(address::FLAGS, flags::NO_DAD);
    }
    set(rtnl, "adding an address", &message).await
}

/// Adds an address exactly as in the message.
pub(super) async fn add_as(rtnl: &Rtnl, address: &AddressMessage) -> Result<(), StepError> {
    set(rtnl, "putting an address back", address).await
}

async fn set(rtnl: &Rtnl, step: &'static str, address: &AddressMessage) -> Result<(), StepError> {
    rtnl.change(step, address::NEW, RequestFlags::REPLACE, &address.emit()).await
}

pub(super) async fn delete(rtnl: &Rtnl, address: &AddressMessage) -> Result<(), StepError> {
    let step = "removing an old address";
    match rtnl.change(step, address::DELETE, RequestFlags::ONE, &address.emit()).await {
        // The kernel has removed it together with another address.
        Err(error) if error.errno() == Some(Errno::ADDRNOTAVAIL.raw_os_error()) => Ok(()),
        other => other,
    }
}

fn is_plain(address: &AddressMessage) -> bool {
    let lasts =
        address.lifetime().is_none_or(|life| life.valid == u32::MAX && life.preferred == u32::MAX);
    // Metric of the route to its subnet.
    lasts && address.attributes.u32(address::ROUTE_PRIORITY).unwrap_or(0) == 0
}

/// Reports whether `address` is as [`add`] makes it, apart from its lifetime, which `add` changes.
fn is(address: &AddressMessage, wanted: &InterfaceAddress) -> bool {
    let ip = wanted.address();
    let broadcast = (ip.is_ipv4() && wanted.prefix_len() < 31).then(|| wanted.broadcast());
    // Different values are the two ends of a point-to-point link.
    let mut ends = [address::LOCAL, address::ADDRESS].into_iter();
    let is_own = ends.all(|end| address.attributes.ip(end).is_none_or(|one| one == ip));
    // Without the route to its subnet no gateway can be reached. An address for which duplicate address detection
    // failed is unusable, and is added again.
    let is_usable = address.flags() & (flags::NO_PREFIX_ROUTE | flags::DAD_FAILED) == 0;
    is_own
        && is_usable
        && address.attributes.ip(address::BROADCAST) == broadcast
        && ip_of(address) == Some(ip)
        && address.prefix_len == wanted.prefix_len()
        && (ip.is_ipv6() || address.scope == address::UNIVERSE)
}

/// Reports whether `address` prevents `wanted` from being added, because the kernel would treat them as the same
/// address: an IPv6 address exists only once, an IPv4 address once for each prefix length.
fn bars(address: &AddressMessage, wanted: &InterfaceAddress) -> bool {
    ip_of(address) == Some(wanted.address())
        && (wanted.address().is_ipv6() || address.prefix_len == wanted.prefix_len())
}

pub(super) fn is_link_local_v6(address: &AddressMessage) -> bool {
    matches!(ip_of(address), Some(IpAddr::V6(v6)) if v6.is_unicast_link_local())
}

/// Formats an address as `10.0.0.2/16`.
pub(super) fn in_words(address: &AddressMessage) -> Option<String> {
    Some(format!("{}/{}", ip_of(address)?, address.prefix_len))
}

/// Returns the interface's own address.
pub(super) fn ip_of(address: &AddressMessage) -> Option<IpAddr> {
    address.ip()
}
