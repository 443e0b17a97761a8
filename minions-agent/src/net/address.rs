//! An interface's addresses.

use super::link::Index;
use super::rtnl::{Rtnl, StepError, dump};
use minions_proto::cidr::InterfaceAddress;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rustix::io::Errno;
use std::net::IpAddr;

/// How an address that is added comes into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duplicates {
    /// At once. The host gives each guest its own address, and looking for others that have it would
    /// keep an IPv6 one unusable for a second after we say that it is configured.
    Ignore,
    /// An IPv6 one only when the kernel has found nobody else with it.
    Detect,
}

/// Makes `wanted` the only addresses of `link`, in both families. IPv6 link-local addresses stay: the
/// kernel makes them itself, and neighbour discovery needs them.
pub(super) async fn replace(
    rtnl: &Rtnl,
    link: Index,
    wanted: &[InterfaceAddress],
    duplicates: Duplicates,
) -> Result<(), StepError> {
    let present = list(rtnl, link).await?;
    let bars_any = |address: &AddressMessage| wanted.iter().any(|one| bars(address, one));
    let (conflicting, other): (Vec<_>, Vec<_>) =
        superfluous(&present, wanted).cloned().partition(|address| bars_any(address));
    for address in conflicting {
        delete(rtnl, address).await?;
    }
    // First the new ones, then the old ones away: if it can be, the interface is never without any.
    add_missing(rtnl, link, wanted, duplicates).await?;
    for address in other {
        delete(rtnl, address).await?;
    }
    // With an IPv4 address go all that the kernel holds for its secondaries: those of its subnet
    // that came later, so perhaps new ones.
    add_missing(rtnl, link, wanted, duplicates).await
}

pub(super) async fn list(rtnl: &Rtnl, link: Index) -> Result<Vec<AddressMessage>, StepError> {
    let request = rtnl.address().get().set_link_index_filter(link);
    dump("listing the addresses", request.execute()).await
}

/// Those that [`replace`] takes away.
pub(super) fn superfluous<'a>(
    present: &'a [AddressMessage],
    wanted: &[InterfaceAddress],
) -> impl Iterator<Item = &'a AddressMessage> {
    present.iter().filter(|address| {
        !wanted.iter().any(|one| is(address, one))
            && (!is_link_local_v6(address) || wanted.iter().any(|one| bars(address, one)))
    })
}

/// Whether it is there for ever, exactly as it would be added.
pub(super) fn is_present(present: &[AddressMessage], wanted: &InterfaceAddress) -> bool {
    present.iter().any(|address| is(address, wanted) && is_plain(address))
}

async fn add_missing(
    rtnl: &Rtnl,
    link: Index,
    wanted: &[InterfaceAddress],
    duplicates: Duplicates,
) -> Result<(), StepError> {
    let present = list(rtnl, link).await?;
    let missing: Vec<_> = wanted.iter().filter(|one| !is_present(&present, one)).collect();
    // The kernel lists the newest IPv6 address first, and the oldest IPv4 address.
    let v4 = missing.iter().filter(|one| one.address().is_ipv4());
    let v6 = missing.iter().rev().filter(|one| one.address().is_ipv6());
    for one in v4.chain(v6) {
        add(rtnl, link, one, duplicates).await?;
    }
    Ok(())
}

/// Adds it, or makes it permanent if it is there with a lifetime (from DHCP, say).
async fn add(
    rtnl: &Rtnl,
    link: Index,
    wanted: &InterfaceAddress,
    duplicates: Duplicates,
) -> Result<(), StepError> {
    let mut request = rtnl.address().add(link, wanted.address(), wanted.prefix_len()).replace();
    if wanted.address().is_ipv6() && duplicates == Duplicates::Ignore {
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(StepError::at("adding an address"))
}

/// Adds it exactly as the message says.
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
        // The kernel took it away with another one.
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
        // Of the route to its subnet.
        AddressAttribute::RoutePriority(metric) => *metric == 0,
        _ => true,
    })
}

/// Whether it is as [`add`] makes it, but perhaps for its lifetime, which `add` changes.
fn is(address: &AddressMessage, wanted: &InterfaceAddress) -> bool {
    let ip = wanted.address();
    let broadcast = (ip.is_ipv4() && wanted.prefix_len() < 31).then(|| wanted.broadcast());
    let mut has_broadcast = None;
    let same_attributes = address.attributes.iter().all(|attribute| match attribute {
        // Apart, they are the two ends of a point-to-point link.
        AddressAttribute::Local(one) | AddressAttribute::Address(one) => *one == ip,
        AddressAttribute::Broadcast(v4) => {
            has_broadcast = Some(IpAddr::V4(*v4));
            true
        }
        // Without the route to its subnet no gateway can be reached. One that somebody else on the link has is of no use, and is tried again.
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

/// Whether the kernel would take the wanted one for this one, and leave it as it is. IPv6 doesn't
/// have an address twice, IPv4 doesn't with the same prefix length.
fn bars(address: &AddressMessage, wanted: &InterfaceAddress) -> bool {
    ip_of(address) == Some(wanted.address())
        && (wanted.address().is_ipv6() || address.header.prefix_len == wanted.prefix_len())
}

pub(super) fn is_link_local_v6(address: &AddressMessage) -> bool {
    matches!(ip_of(address), Some(IpAddr::V6(v6)) if v6.is_unicast_link_local())
}

/// `10.0.0.2/16`.
pub(super) fn in_words(address: &AddressMessage) -> Option<String> {
    Some(format!("{}/{}", ip_of(address)?, address.header.prefix_len))
}

/// The interface's own address. On a point-to-point link `Address` is the peer's, `Local` ours.
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
