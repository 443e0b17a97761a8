//! Routes: the wanted ones, and those that conflict with them.

use super::desired::DesiredNetwork;
use super::link::LinkIndex;
use super::rtnl::{Rtnl, StepError, dump};
use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::RouteMessageBuilder;
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Wanted route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedRoute {
    pub(super) to: IpNet,
    pub(super) via: Option<IpAddr>,
    pub(super) link: LinkIndex,
    pub(super) on_link: bool,
    pub(super) metric: u32,
}

/// Returns all routes of both families, in the order in which the kernel tries routes to the same destination.
pub(super) async fn list(rtnl: &Rtnl) -> Result<Vec<RouteMessage>, StepError> {
    let v4 = rtnl.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let mut routes = dump("listing the routes", v4).await?;
    let v6 = rtnl.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
    routes.extend(dump("listing the routes", v6).await?);
    Ok(routes)
}

/// Sets all wanted routes and removes those that conflict with them.
pub(super) async fn replace(rtnl: &Rtnl, desired: &DesiredNetwork) -> Result<(), StepError> {
    let present = list(rtnl).await?;
    // Routes without a gateway first, because they lead to the next hops of the others.
    let mut missing: Vec<_> = desired.routes.iter().filter(|one| !one.is_among(&present)).collect();
    missing.sort_by_key(|one| one.via.is_some());
    for one in missing {
        let request = rtnl.route().add(one.message()).replace();
        request.execute().await.map_err(StepError::at("setting a route"))?;
    }
    for route in list(rtnl).await?.into_iter().filter(|route| is_superfluous(route, desired)) {
        delete(rtnl, route).await?;
    }
    Ok(())
}

/// Adds a route exactly as in the message, after others to the same destination.
pub(super) async fn add_as(rtnl: &Rtnl, route: RouteMessage) -> Result<(), StepError> {
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(route));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
    let at = StepError::at("putting a route back");
    let mut handle = (**rtnl).clone();
    let mut replies = handle.request(request).map_err(&at)?;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::Error(error) if error.code.is_some() && !is(&error, Errno::EXIST) => {
                return Err(at(rtnetlink::Error::NetlinkError(error)));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn delete(rtnl: &Rtnl, route: RouteMessage) -> Result<(), StepError> {
    match rtnl.route().del(route).execute().await {
        // The kernel has removed it together with another route or with an address.
        Err(rtnetlink::Error::NetlinkError(error)) if is(&error, Errno::SRCH) => Ok(()),
        other => other.map_err(StepError::at("removing an old route")),
    }
}

fn is(error: &netlink_packet_core::ErrorMessage, errno: Errno) -> bool {
    error.raw_code() == -errno.raw_os_error()
}

/// Reports whether the change removes this route.
pub(super) fn is_superfluous(route: &RouteMessage, desired: &DesiredNetwork) -> bool {
    if !affects_forwarding(route) || desired.routes.iter().any(|one| one.is(route)) {
        return false;
    }
    if route.header.destination_prefix_length == 0 {
        let wants_one = |one: &WantedRoute| {
            one.to.prefix_len() == 0 && family(one.to.addr()) == route.header.address_family
        };
        return desired.routes.iter().any(wants_one)
            || desired.exclusive_links().any(|link| leads_over(route, link));
    }
    desired.replaces_routes
        && route.header.protocol != RouteProtocol::Kernel
        && desired.links.iter().any(|link| leads_over(route, link.link.index))
}

/// Reports whether a route is in the main table (the kernel's dump has all tables) and of a kind that decides where
/// packets go. Blackholes and the like count: with a lower metric they hide a wanted route.
fn affects_forwarding(route: &RouteMessage) -> bool {
    route.header.table == RouteHeader::RT_TABLE_MAIN
        && matches!(
            route.header.kind,
            RouteType::Unicast
                | RouteType::BlackHole
                | RouteType::Unreachable
                | RouteType::Prohibit
                | RouteType::Throw
        )
}

impl WantedRoute {
    pub(super) fn is_among(&self, routes: &[RouteMessage]) -> bool {
        routes.iter().any(|route| self.is(route))
    }

    /// Reports whether `route` is this route. The same path with another metric, for example from DHCP, is a different
    /// route.
    fn is(&self, route: &RouteMessage) -> bool {
        affects_forwarding(route)
            && route.header.kind == RouteType::Unicast
            && destination_of(route) == Some(self.to)
            && output_of(route) == Some(self.link)
            && gateway_of(route) == self.via
            && metric_of(route) == self.metric
            && route.header.flags.contains(RouteFlags::Onlink) == self.on_link
    }

    fn message(&self) -> RouteMessage {
        let mut message = match (self.to.addr(), self.via) {
            (IpAddr::V4(to), via) => {
                let route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(to, self.to.prefix_len())
                    .output_interface(self.link);
                match via {
                    Some(IpAddr::V4(via)) => route.gateway(via).build(),
                    _ => route.scope(RouteScope::Link).build(),
                }
            }
            (IpAddr::V6(to), via) => {
                let route = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(to, self.to.prefix_len())
                    .output_interface(self.link);
                match via {
                    Some(IpAddr::V6(via)) => route.gateway(via).build(),
                    _ => route.build(),
                }
            }
        };
        if self.metric > 0 {
            message.attributes.push(RouteAttribute::Priority(self.metric));
        }
        if self.on_link {
            message.header.flags |= RouteFlags::Onlink;
        }
        message
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub(super) fn metric_of(route: &RouteMessage) -> u32 {
    let metric = find(route, |attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

/// Returns the destination; `None` for families other than IPv4 and IPv6.
pub(super) fn destination_of(route: &RouteMessage) -> Option<IpNet> {
    let address = find(route, |attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let unspecified = match route.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let address: IpAddr = address.unwrap_or(unspecified);
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

pub(super) fn output_of(route: &RouteMessage) -> Option<LinkIndex> {
    find(route, |attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Reports whether a route uses `link`, alone or for one of several hops.
fn leads_over(route: &RouteMessage, link: LinkIndex) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(index) => *index == link,
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == link),
        _ => false,
    })
}

/// Reports whether a route is a default route of the main table that forwards packets.
pub(super) fn is_default(route: &RouteMessage) -> bool {
    affects_forwarding(route)
        && route.header.kind == RouteType::Unicast
        && route.header.destination_prefix_length == 0
}

/// Next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteHop {
    pub(super) link: LinkIndex,
    pub(super) gateway: IpAddr,
    pub(super) on_link: bool,
}

/// Returns the next hops of a route: one, several with equal-cost paths, none if its destination is on the link.
pub(super) fn hops_of(route: &RouteMessage) -> Vec<RouteHop> {
    let on_link = route.header.flags.contains(RouteFlags::Onlink);
    let single = output_of(route).zip(router_in(&route.attributes));
    let mut hops: Vec<_> =
        single.into_iter().map(|(link, gateway)| RouteHop { link, gateway, on_link }).collect();
    for attribute in &route.attributes {
        let RouteAttribute::MultiPath(paths) = attribute else { continue };
        hops.extend(paths.iter().filter_map(|path| {
            Some(RouteHop {
                link: path.interface_index,
                gateway: router_in(&path.attributes)?,
                on_link: path.flags.contains(RouteNextHopFlags::Onlink),
            })
        }));
    }
    hops
}

/// Returns the router among the attributes. An IPv4 route can have an IPv6 router (`RTA_VIA`).
fn router_in(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    })
}

pub(super) fn gateway_of(route: &RouteMessage) -> Option<IpAddr> {
    find(route, |attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn find<T>(route: &RouteMessage, wanted: impl Fn(&RouteAttribute) -> Option<T>) -> Option<T> {
    route.attributes.iter().find_map(wanted)
}
