//! Addresses of an interface.

use super::link::LinkIndex;
use super::rtnl::{Rtnl, StepError, dump};
use minions_proto::cidr::InterfaceAddress;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
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
        delete(rtnl, address).await?;
    }
    // New addresses first, then removal of old ones, so that the interface always has an address if possible.
    add_missing(rtnl, link, wanted, duplicates).await?;
    for address in other {
        delete(rtnl, address).await?;
    }
    // The kernel removes the secondaries of an IPv4 address together with it: all addresses of its subnet that
    // were added later. New addresses can be among them.
    add_missing(rtnl, link, wanted, duplicates).await
}

pub(super) async fn list(rtnl: &Rtnl, link: LinkIndex) -> Result<Vec<AddressMessage>, StepError> {
    let request = rtnl.address().get().set_link_index_filter(link);
    dump("listing the addresses", request.execute()).await
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
    let mut request = rtnl.address().add(link, wanted.address(), wanted.prefix_len()).replace();
    if wanted.address().is_ipv6() && duplicates == DuplicateDetection::Ignore {
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(StepError::at("adding an address"))
}

/// Adds an address exactly as in the message.
pub(super) async fn add_as(rtnl: &Rtnl, address: AddressMessage) -> Result<(), StepError> {
    let (link, ip, prefix) = (
        address.header.index,
        ip_of(&address).unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
        address.header.prefix_len,
    );
    let mut request = rtnl.address().add(link, ip, prefix).replace();
    *request.message_mut() = address;
    request.execute().await.map_err(StepError::at("putting an address back"))
}

pub(super) async fn delete(rtnl: &Rtnl, address: AddressMessage) -> Result<(), StepError> {
    let deleted = rtnl.address().del(address).execute().await;
    match deleted {
        // The kernel has removed it together with another address.
        Err(rtnetlink::Error::NetlinkError(error))
            if error.raw_code() == -Errno::ADDRNOTAVAIL.raw_os_error() =>
        {
            Ok(())
        }
        other => other.map_err(StepError::at("removing an old address")),
    }
}

fn is_plain(address: &AddressMessage) -> bool {
    address.attributes.iter().all(|attribute| match attribute {
        AddressAttribute::CacheInfo(life) => {
            life.ifa_valid == u32::MAX && life.ifa_preferred == u32::MAX
        }
        // Metric of the route to its subnet.
        AddressAttribute::RoutePriority(metric) => *metric == 0,
        _ => true,
    })
}

/// Reports whether `address` is as [`add`] makes it, apart from its lifetime, which `add` changes.
fn is(address: &AddressMessage, wanted: &InterfaceAddress) -> bool {
    let ip = wanted.address();
    let broadcast = (ip.is_ipv4() && wanted.prefix_len() < 31).then(|| wanted.broadcast());
    let mut has_broadcast = None;
    let same_attributes = address.attributes.iter().all(|attribute| match attribute {
        // Different values are the two ends of a point-to-point link.
        AddressAttribute::Local(one) | AddressAttribute::Address(one) => *one == ip,
        AddressAttribute::Broadcast(v4) => {
            has_broadcast = Some(IpAddr::V4(*v4));
            true
        }
        // Without the route to its subnet no gateway can be reached. An address for which duplicate address
        // detection failed is unusable, and is added again.
        AddressAttribute::Flags(flags) => {
            !flags.intersects(AddressFlags::Noprefixroute | AddressFlags::Dadfailed)
        }
        _ => true,
    });
    same_attributes
        && has_broadcast == broadcast
        && ip_of(address) == Some(ip)
        && address.header.prefix_len == wanted.prefix_len()
        && (ip.is_ipv6() || address.header.scope == AddressScope::Universe)
}

/// Reports whether `address` prevents `wanted` from being added, because the kernel would treat them as the same
/// address: an IPv6 address exists only once, an IPv4 address once for each prefix length.
fn bars(address: &AddressMessage, wanted: &InterfaceAddress) -> bool {
    ip_of(address) == Some(wanted.address())
        && (wanted.address().is_ipv6() || address.header.prefix_len == wanted.prefix_len())
}

pub(super) fn is_link_local_v6(address: &AddressMessage) -> bool {
    matches!(ip_of(address), Some(IpAddr::V6(v6)) if v6.is_unicast_link_local())
}

/// Formats an address as `10.0.0.2/16`.
pub(super) fn in_words(address: &AddressMessage) -> Option<String> {
    Some(format!("{}/{}", ip_of(address)?, address.header.prefix_len))
}

/// Returns the interface's own address. On a point-to-point link, `Address` is the peer's address and `Local` the
/// interface's.
pub(super) fn ip_of(address: &AddressMessage) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        address.attributes.iter().find_map(wanted)
    };
    find(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}
