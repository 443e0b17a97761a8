//! Routes: the wanted ones, and those that conflict with them.

use super::desired::DesiredNetwork;
use super::link::LinkIndex;
use super::rtnl::{Rtnl, StepError};
use crate::netlink::route::{self, RouteMessage, kind, protocol};
use crate::netlink::{AddressFamily, RequestFlags};
use ipnet::IpNet;
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
    let mut routes = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let (step, all) = ("listing the routes", RouteMessage::of_family(family).emit());
        let read = rtnl.read(step, route::GET, RequestFlags::DUMP, &all, RouteMessage::parse);
        routes.extend(read.await?);
    }
    Ok(routes)
}

/// Returns the route that the kernel uses for packets to an address; over `link`, if that is given.
pub(super) async fn lookup(
    rtnl: &Rtnl,
    address: IpAddr,
    link: Option<LinkIndex>,
) -> Result<Vec<RouteMessage>, StepError> {
    let mut question = RouteMessage::to(address, if address.is_ipv4() { 32 } else { 128 });
    if let Some(link) = link {
        question.attributes.push_u32(route::OUTPUT, link);
    }
    let (step, question) = ("looking a route up", question.emit());
    rtnl.read(step, route::GET, RequestFlags::ONE, &question, RouteMessage::parse).await
}

/// Sets all wanted routes and removes those that conflict with them.
pub(super) async fn replace(rtnl: &Rtnl, desired: &DesiredNetwork) -> Result<(), StepError> {
    let present = list(rtnl).await?;
    // Routes without a gateway first, because they lead to the next hops of the others.
    let mut missing: Vec<_> = desired.routes.iter().filter(|one| !one.is_among(&present)).collect();
    missing.sort_by_key(|one| one.via.is_some());
    for one in missing {
        let message = one.message().emit();
        rtnl.change("setting a route", route::NEW, RequestFlags::REPLACE, &message).await?;
    }
    for route in list(rtnl).await?.into_iter().filter(|route| is_superfluous(route, desired)) {
        delete(rtnl, &route).await?;
    }
    Ok(())
}

/// Adds a route exactly as in the message, after others to the same destination.
pub(super) async fn add_as(rtnl: &Rtnl, route: &RouteMessage) -> Result<(), StepError> {
    let step = "putting a route back";
    let added = rtnl.change(step, route::NEW, RequestFlags::APPEND, &route.emit()).await;
    unless(added, Errno::EXIST)
}

pub(super) async fn delete(rtnl: &Rtnl, route: &RouteMessage) -> Result<(), StepError> {
    let step = "removing an old route";
    let deleted = rtnl.change(step, route::DELETE, RequestFlags::ONE, &route.emit()).await;
    // The kernel has removed it together with another route or with an address.
    unless(deleted, Errno::SRCH)
}

/// Ignores this error.
fn unless(done: Result<(), StepError>, ignored: Errno) -> Result<(), StepError> {
    match done {
        Err(error) if error.errno() == Some(ignored.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// Reports whether the change removes this route.
pub(super) fn is_superfluous(route: &RouteMessage, desired: &DesiredNetwork) -> bool {
    if !affects_forwarding(route) || desired.routes.iter().any(|one| one.is(route)) {
        return false;
    }
    if route.destination_prefix_len == 0 {
        let wants_one = |one: &WantedRoute| {
            one.to.prefix_len() == 0 && AddressFamily::of(one.to.addr()) == route.family
        };
        return desired.routes.iter().any(wants_one)
            || desired.exclusive_links().any(|link| leads_over(route, link));
    }
    desired.replaces_routes
        && route.protocol != protocol::KERNEL
        && desired.links.iter().any(|link| leads_over(route, link.link.index))
}

/// Reports whether a route is in the main table (the kernel's dump has all tables) and of a kind that decides where
/// packets go. Blackholes and the like count: with a lower metric they hide a wanted route.
fn affects_forwarding(route: &RouteMessage) -> bool {
    route.table == route::TABLE_MAIN
        && matches!(
            route.kind,
            kind::UNICAST | kind::BLACKHOLE | kind::UNREACHABLE | kind::PROHIBIT | kind::THROW
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
            && route.kind == kind::UNICAST
            && destination_of(route) == Some(self.to)
            && output_of(route) == Some(self.link)
            && gateway_of(route) == self.via
            && metric_of(route) == self.metric
            && route.is_on_link() == self.on_link
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::to(self.to.addr(), self.to.prefix_len());
        message.attributes.push_u32(route::OUTPUT, self.link);
        match self.via {
            Some(via) => message.attributes.push_ip(route::GATEWAY, via),
            None if self.to.addr().is_ipv4() => message.scope = route::SCOPE_LINK,
            // IPv6 routes have no scope.
            None => {}
        }
        if self.metric > 0 {
            message.attributes.push_u32(route::PRIORITY, self.metric);
        }
        message.set_on_link(self.on_link);
        message
    }
}

pub(super) fn metric_of(route: &RouteMessage) -> u32 {
    route.attributes.u32(route::PRIORITY).unwrap_or(0)
}

/// Returns the destination; `None` for families other than IPv4 and IPv6.
pub(super) fn destination_of(route: &RouteMessage) -> Option<IpNet> {
    let unspecified: IpAddr = match route.family {
        AddressFamily::INET => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let address = route.attributes.ip(route::DESTINATION).unwrap_or(unspecified);
    IpNet::new(address, route.destination_prefix_len).ok()
}

pub(super) fn output_of(route: &RouteMessage) -> Option<LinkIndex> {
    route.attributes.u32(route::OUTPUT)
}

/// Reports whether a route uses `link`, alone or for one of several hops.
fn leads_over(route: &RouteMessage, link: LinkIndex) -> bool {
    output_of(route) == Some(link) || route.hops().iter().any(|hop| hop.index == link)
}

/// Reports whether a route is a default route of the main table that forwards packets.
pub(super) fn is_default(route: &RouteMessage) -> bool {
    affects_forwarding(route) && route.kind == kind::UNICAST && route.destination_prefix_len == 0
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
    let on_link = route.is_on_link();
    let single = output_of(route).zip(route.router());
    let mut hops: Vec<_> =
        single.into_iter().map(|(link, gateway)| RouteHop { link, gateway, on_link }).collect();
    hops.extend(route.hops().iter().filter_map(|hop| {
        let (link, on_link) = (hop.index, hop.is_on_link());
        Some(RouteHop { link, gateway: hop.router()?, on_link })
    }));
    hops
}

pub(super) fn gateway_of(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.ip(route::GATEWAY)
}
