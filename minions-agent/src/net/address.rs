//! An interface's addresses.

use super::link::Index;
use super::rtnl::{Rtnl, StepError, dump};
use minions_proto::cidr::InterfaceAddress;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rustix::io::Errno;
use std::net::IpAddr;

/// Makes `wanted` the only address of `link`, in both families. IPv6 link-local addresses stay: the
/// kernel makes them itself, and neighbour discovery needs them.
pub(super) async fn replace(
    rtnl: &Rtnl,
    link: Index,
    wanted: &InterfaceAddress,
) -> Result<(), StepError> {
    let present = list(rtnl, link).await?;
    let (conflicting, other): (Vec<_>, Vec<_>) = present
        .into_iter()
        .filter(|address| !is(address, wanted))
        .filter(|address| bars(address, wanted) || !is_link_local_v6(address))
        .partition(|address| bars(address, wanted));
    for address in conflicting {
        delete(rtnl, address).await?;
    }
    // First the new one, then the old ones away: if it can be, the interface is never without any.
    add(rtnl, link, wanted).await?;
    for address in other {
        delete(rtnl, address).await?;
    }
    // With an IPv4 address go all that the kernel holds for its secondaries: those of its subnet
    // that came later, so perhaps the new one.
    add(rtnl, link, wanted).await
}

async fn list(rtnl: &Rtnl, link: Index) -> Result<Vec<AddressMessage>, StepError> {
    let request = rtnl.address().get().set_link_index_filter(link);
    dump("listing the addresses", request.execute()).await
}

/// Adds it, or makes it permanent if it is there with a lifetime (from DHCP, say).
async fn add(rtnl: &Rtnl, link: Index, wanted: &InterfaceAddress) -> Result<(), StepError> {
    let mut request = rtnl.address().add(link, wanted.address(), wanted.prefix_len()).replace();
    if wanted.address().is_ipv6() {
        // The host gives each guest its own address. Looking for duplicates would keep this one
        // unusable for a second after we say that it is configured.
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(StepError::at("adding the address"))
}

async fn delete(rtnl: &Rtnl, address: AddressMessage) -> Result<(), StepError> {
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
        // Without the route to its subnet no gateway can be reached.
        AddressAttribute::Flags(flags) => !flags.contains(AddressFlags::Noprefixroute),
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

fn is_link_local_v6(address: &AddressMessage) -> bool {
    matches!(ip_of(address), Some(IpAddr::V6(v6)) if v6.is_unicast_link_local())
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
