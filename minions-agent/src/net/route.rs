//! The default route.

use super::link::Index;
use super::rtnl::{Rtnl, StepError, dump};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::RouteMessageBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The metric that the kernel gives an IPv6 route that comes without (`IP6_RT_PRIO_USER`). An IPv4
/// route without one has 0, which is not shown.
const IPV6_METRIC: u32 = 1024;

/// Makes the route over `gateway` and `link` the only default route of its family, and leaves no
/// default route of the other family on `link`.
pub(super) async fn replace_default(
    rtnl: &Rtnl,
    link: Index,
    gateway: IpAddr,
) -> Result<(), StepError> {
    rtnl.route()
        .add(default_route(link, gateway))
        .replace()
        .execute()
        .await
        .map_err(StepError::at("setting the default route"))?;
    for (query, same_family) in [
        (RouteMessageBuilder::<Ipv4Addr>::new().build(), gateway.is_ipv4()),
        (RouteMessageBuilder::<Ipv6Addr>::new().build(), gateway.is_ipv6()),
    ] {
        let routes = dump("listing the routes", rtnl.route().get(query).execute()).await?;
        let superfluous = routes
            .into_iter()
            .filter(is_default)
            .filter(|route| same_family || leads_over(route, link))
            .filter(|route| !(same_family && is_wanted(route, link, gateway)));
        for route in superfluous {
            rtnl.route()
                .del(route)
                .execute()
                .await
                .map_err(StepError::at("removing an old default route"))?;
        }
    }
    Ok(())
}

fn default_route(link: Index, gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(v4) => {
            RouteMessageBuilder::<Ipv4Addr>::new().output_interface(link).gateway(v4).build()
        }
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<Ipv6Addr>::new().output_interface(link).gateway(v6).build()
        }
    }
}

/// In the main table; the kernel's dump gives all of them.
fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && matches!(
            route.header.kind,
            // Those that lead nowhere hide ours just as well, if their metric is lower.
            RouteType::Unicast
                | RouteType::BlackHole
                | RouteType::Unreachable
                | RouteType::Prohibit
                | RouteType::Throw
        )
}

/// The one that was just set: the same way with another metric, say from DHCP, is not it.
fn is_wanted(route: &RouteMessage, link: Index, gateway: IpAddr) -> bool {
    let metric = find(route, |attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    let ours = if gateway.is_ipv4() { None } else { Some(IPV6_METRIC) };
    output_of(route) == Some(link) && gateway_of(route) == Some(gateway) && metric == ours
}

fn output_of(route: &RouteMessage) -> Option<Index> {
    find(route, |attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// By itself, or by one of several hops.
fn leads_over(route: &RouteMessage, link: Index) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(index) => *index == link,
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == link),
        _ => false,
    })
}

fn gateway_of(route: &RouteMessage) -> Option<IpAddr> {
    find(route, |attribute| match (attribute, route.header.address_family) {
        (RouteAttribute::Gateway(RouteAddress::Inet(v4)), AddressFamily::Inet) => {
            Some((*v4).into())
        }
        (RouteAttribute::Gateway(RouteAddress::Inet6(v6)), AddressFamily::Inet6) => {
            Some((*v6).into())
        }
        _ => None,
    })
}

fn find<T>(route: &RouteMessage, wanted: impl Fn(&RouteAttribute) -> Option<T>) -> Option<T> {
    route.attributes.iter().find_map(wanted)
}
