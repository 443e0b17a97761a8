//! Whether a change does what it is for.

use super::address::{self, ip_of};
use super::desired::{Desired, DesiredLink};
use super::rtnl::{Rtnl, dump};
use super::{NetworkError, link, neighbour, route};
use minions_proto::cidr::{InterfaceAddress, is_link_local_v6};
use minions_proto::message::Check;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::RouteMessageBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// For a carrier after the interface was set up.
const LINK_DEADLINE: Duration = Duration::from_secs(3);

/// The kernel looks for an IPv6 duplicate for a second, after up to a second of waiting.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(5);

/// How long whoever has an IPv4 address already may take to say so.
const DUPLICATE_DEADLINE: Duration = Duration::from_secs(1);

/// The kernel asks three times, a second apart.
const GATEWAY_DEADLINE: Duration = Duration::from_secs(4);

/// How often to look at what has to come by itself.
const LOOK: Duration = Duration::from_millis(20);

/// Before they are added: nobody on the link has one of the new IPv4 addresses. The kernel does the
/// same for IPv6, after they are added.
pub(super) async fn no_duplicates(
    rtnl: &Rtnl,
    one: &DesiredLink,
    present: &[AddressMessage],
) -> Result<(), NetworkError> {
    let deadline = Instant::now() + DUPLICATE_DEADLINE;
    let new = one.addresses.iter().flatten().filter(|address| {
        address.address().is_ipv4()
            && !present.iter().any(|old| ip_of(old) == Some(address.address()))
    });
    let new: Vec<_> = new.map(InterfaceAddress::address).collect();
    let asked = new.iter().map(|ip| neighbour::answers(rtnl, one.link.index, *ip, deadline));
    let answered = futures_util::future::join_all(asked).await;
    // Once the address is ours, an entry for it would be wrong.
    for ip in &new {
        neighbour::forget_address(rtnl, one.link.index, *ip).await;
    }
    for (ip, answered) in new.iter().zip(answered) {
        if answered? {
            return Err(NetworkError::Duplicate { address: *ip, link: one.link.name.clone() });
        }
    }
    Ok(())
}

pub(super) async fn check(
    rtnl: &Rtnl,
    desired: &Desired,
    check: Check,
) -> Result<(), NetworkError> {
    match check {
        Check::Link => links(rtnl, desired).await,
        Check::Addresses => {
            for one in &desired.links {
                addresses(rtnl, one).await?;
            }
            Ok(())
        }
        Check::Route => {
            for (one, gateway) in gateways(desired) {
                route_to(rtnl, one, gateway).await?;
            }
            Ok(())
        }
        Check::Gateway => {
            let deadline = Instant::now() + GATEWAY_DEADLINE;
            for (one, gateway) in gateways(desired) {
                if !neighbour::answers(rtnl, one.link.index, gateway, deadline).await? {
                    return Err(NetworkError::Silent { gateway, link: one.link.name.clone() });
                }
            }
            Ok(())
        }
        // Needs no netlink.
        Check::Dns => Ok(()),
    }
}

fn gateways(desired: &Desired) -> impl Iterator<Item = (&DesiredLink, IpAddr)> {
    desired.links.iter().flat_map(|one| one.gateways.iter().map(move |gateway| (one, *gateway)))
}

async fn links(rtnl: &Rtnl, desired: &Desired) -> Result<(), NetworkError> {
    let deadline = Instant::now() + LINK_DEADLINE;
    loop {
        let now = link::list(rtnl).await?;
        let is_running = |one: &&DesiredLink| {
            now.iter().any(|link| link.index == one.link.index && link.up && link.running)
        };
        match desired.links.iter().find(|one| !is_running(one)) {
            None => return Ok(()),
            Some(one) if Instant::now() >= deadline => {
                return Err(NetworkError::NoCarrier { link: one.link.name.clone() });
            }
            Some(_) => sleep(LOOK).await,
        }
    }
}

async fn addresses(rtnl: &Rtnl, one: &DesiredLink) -> Result<(), NetworkError> {
    let deadline = Instant::now() + ADDRESS_DEADLINE;
    let name = || one.link.name.clone();
    'wanted: for wanted in one.addresses.iter().flatten() {
        loop {
            let present = address::list(rtnl, one.link.index).await?;
            let ip = wanted.address();
            let found = present.iter().find(|address| ip_of(address) == Some(ip));
            match found.map(flags) {
                Some(flags) if flags.contains(AddressFlags::Dadfailed) => {
                    return Err(NetworkError::Duplicate { address: ip, link: name() });
                }
                Some(flags) if !flags.contains(AddressFlags::Tentative) => continue 'wanted,
                _ if Instant::now() >= deadline => {
                    return Err(NetworkError::Unusable { address: ip, link: name() });
                }
                _ => sleep(LOOK).await,
            }
        }
    }
    Ok(())
}

fn flags(address: &AddressMessage) -> AddressFlags {
    let found = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    found.unwrap_or(AddressFlags::empty())
}

/// The kernel would send packets for the gateway over this link, straight.
async fn route_to(rtnl: &Rtnl, one: &DesiredLink, gateway: IpAddr) -> Result<(), NetworkError> {
    let link = one.link.index;
    let question = match gateway {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
        IpAddr::V6(v6) => {
            let question = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128);
            // A link-local address means something on its link only.
            let local = is_link_local_v6(gateway);
            if local { question.output_interface(link).build() } else { question.build() }
        }
    };
    let found = dump("looking a route up", rtnl.route().get(question).execute()).await?;
    let straight = found
        .iter()
        .any(|route| route::output_of(route) == Some(link) && route::gateway_of(route).is_none());
    if straight {
        return Ok(());
    }
    Err(NetworkError::Elsewhere { gateway, link: one.link.name.clone() })
}
