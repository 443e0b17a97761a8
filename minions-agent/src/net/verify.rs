//! Checks that a change has the intended effect.

use super::address::{self, ip_of};
use super::checks::{ChangeChecks, LinkAddress, LinkName, NextHop, Router};
use super::desired::DesiredLink;
use super::error::NetworkError;
use super::rtnl::Rtnl;
use super::{dns_query, link, neighbour, route};
use crate::netlink::address::{AddressMessage, flags};
use minions_proto::cidr::{InterfaceAddress, is_link_local_v6};
use minions_proto::message::Check;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Deadline for the carrier after the interface was set up.
const LINK_DEADLINE: Duration = Duration::from_secs(3);

/// Deadline for duplicate address detection, which takes the kernel a second after a delay of up to a second.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(5);

/// Deadline for the answer of a host that already uses an IPv4 address.
const DUPLICATE_DEADLINE: Duration = Duration::from_secs(1);

/// Deadline for a gateway's answer. The kernel asks three times, a second apart.
const GATEWAY_DEADLINE: Duration = Duration::from_secs(4);

/// Interval between two readings of a state that the kernel reaches after a while.
const LOOK: Duration = Duration::from_millis(20);

/// Checks that no other host on the link uses one of the new IPv4 addresses, before they are added. The kernel does
/// this for IPv6 addresses after they are added.
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
    // Once the guest has the address, an entry for it would be wrong.
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

/// Runs one check on its objects in `checks`.
pub(super) async fn check(
    rtnl: &Rtnl,
    checks: &ChangeChecks,
    check: Check,
) -> Result<(), NetworkError> {
    match check {
        Check::Link => links(rtnl, &checks.links).await,
        Check::Addresses => addresses(rtnl, &checks.addresses).await,
        Check::Route => {
            for hop in &checks.next_hops {
                route_to(rtnl, hop).await?;
            }
            Ok(())
        }
        Check::Gateway => answer(rtnl, &checks.routers).await,
        Check::Dns => dns_query::any_answers(&checks.servers).await,
    }
}

/// Queries all routers at the same time, so that each has the full deadline.
async fn answer(rtnl: &Rtnl, routers: &[Router]) -> Result<(), NetworkError> {
    let deadline = Instant::now() + GATEWAY_DEADLINE;
    let asked =
        routers.iter().map(|one| neighbour::answers(rtnl, one.link.index, one.address, deadline));
    let answered = futures_util::future::join_all(asked).await;
    for (Router { link, address }, answered) in routers.iter().zip(answered) {
        if !answered? {
            return Err(NetworkError::Silent { gateway: *address, link: link.name.clone() });
        }
    }
    Ok(())
}

async fn links(rtnl: &Rtnl, wanted: &[LinkName]) -> Result<(), NetworkError> {
    let deadline = Instant::now() + LINK_DEADLINE;
    loop {
        let now = link::list(rtnl).await?;
        let is_running = |one: &&LinkName| {
            now.iter().any(|link| link.index == one.index && link.up && link.running)
        };
        match wanted.iter().find(|one| !is_running(one)) {
            None => return Ok(()),
            Some(one) if Instant::now() >= deadline => {
                return Err(NetworkError::NoCarrier { link: one.name.clone() });
            }
            Some(_) => sleep(LOOK).await,
        }
    }
}

async fn addresses(rtnl: &Rtnl, wanted: &[LinkAddress]) -> Result<(), NetworkError> {
    let deadline = Instant::now() + ADDRESS_DEADLINE;
    'wanted: for LinkAddress { link, ip } in wanted {
        let (address, name) = (*ip, || link.name.clone());
        loop {
            let present = address::list(rtnl, link.index).await?;
            let found = present.iter().find(|address| ip_of(address) == Some(*ip));
            match found.map(AddressMessage::flags) {
                Some(present) if present & flags::DAD_FAILED != 0 => {
                    return Err(NetworkError::Duplicate { address, link: name() });
                }
                Some(present) if present & flags::TENTATIVE == 0 => continue 'wanted,
                _ if Instant::now() >= deadline => {
                    return Err(NetworkError::Unusable { address, link: name() });
                }
                _ => sleep(LOOK).await,
            }
        }
    }
    Ok(())
}

/// Checks that the kernel sends packets to the gateway directly over its link, without a further hop.
async fn route_to(rtnl: &Rtnl, hop: &NextHop) -> Result<(), NetworkError> {
    let reached = if hop.on_link {
        is_default_next_hop(rtnl, hop).await?
    } else {
        is_straight(rtnl, hop).await?
    };
    if reached {
        return Ok(());
    }
    Err(NetworkError::Elsewhere { gateway: hop.gateway, link: hop.link.name.clone() })
}

/// Reports whether a default route with this next hop exists. An on-link route needs no other route to its gateway, so
/// its existence is enough. A lookup of the gateway would return the default route with the lowest metric instead.
async fn is_default_next_hop(rtnl: &Rtnl, hop: &NextHop) -> Result<bool, NetworkError> {
    let routes = route::list(rtnl).await?;
    let mut hops = routes.iter().filter(|route| route::is_default(route)).flat_map(route::hops_of);
    Ok(hops.any(|one| one.link == hop.link.index && one.gateway == hop.gateway && one.on_link))
}

async fn is_straight(rtnl: &Rtnl, hop: &NextHop) -> Result<bool, NetworkError> {
    let link = hop.link.index;
    // A link-local address is only valid on its link.
    let over = is_link_local_v6(hop.gateway).then_some(link);
    let found = route::lookup(rtnl, hop.gateway, over).await?;
    Ok(found
        .iter()
        .any(|route| route::output_of(route) == Some(link) && route::gateway_of(route).is_none()))
}
