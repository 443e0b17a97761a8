//! Rules for routes in a network configuration.

use super::bounds::{MAX_ROUTES, at_most};
use super::change::RouteChange;
use super::plan::{InterfacePlan, RoutePlan, Selector};
use crate::cidr::{check_gateway, check_next_hop, is_link_local_v6, parse_destination};
use crate::error::Invalid;
use crate::names::{check_interface_name, parse_mac};
use ipnet::IpNet;
use std::net::IpAddr;

/// Metric that the kernel assigns to an IPv6 route without one (`IP6_RT_PRIO_USER`).
const IPV6_METRIC: u32 = 1024;

/// Returns the metric as the kernel will store it.
fn metric(given: Option<u32>, is_ipv4: bool) -> u32 {
    match given {
        None | Some(0) if !is_ipv4 => IPV6_METRIC,
        given => given.unwrap_or(0),
    }
}

pub(super) fn next_hop(field: &str, text: &str) -> Result<IpAddr, Invalid> {
    check_next_hop(field, text)
}

pub(super) fn check_routes(
    given: &[RouteChange],
    interfaces: &[InterfacePlan],
) -> Result<Vec<RoutePlan>, Invalid> {
    at_most("routes", "routes", given.len(), MAX_ROUTES)?;
    let mut plans: Vec<RoutePlan> = Vec::with_capacity(given.len());
    for (at, change) in given.iter().enumerate() {
        let plan = check_route(format!("routes[{at}]"), change, interfaces)?;
        let same = |other: &&RoutePlan| other.to == plan.to && other.metric == plan.metric;
        if let Some(other) = plans.iter().find(same) {
            let reason = format!("has the destination and metric of `{}`", other.field);
            return Err(Invalid::new(plan.field, reason));
        }
        plans.push(plan);
    }
    Ok(plans)
}

fn check_route(
    field: String,
    change: &RouteChange,
    interfaces: &[InterfacePlan],
) -> Result<RoutePlan, Invalid> {
    let to = parse_destination(&format!("{field}.to"), &change.to)?;
    let is_ipv4 = matches!(to, IpNet::V4(_));
    let via_field = format!("{field}.via");
    let via = change.via.as_deref().map(|via| next_hop(&via_field, via)).transpose()?;
    if let (Some(via), Some(text)) = (via, &change.via)
        && via.is_ipv4() != is_ipv4
    {
        let reason = format!("must be of the same address family as {to}");
        return Err(Invalid::value(via_field, text, &reason));
    }
    let on_link = change.on_link.unwrap_or(false);
    if on_link && via.is_none() {
        return Err(Invalid::new(format!("{field}.on_link"), "requires `via`, which is missing"));
    }
    let selector = match &change.interface {
        Some(text) => selector(&format!("{field}.interface"), text)?,
        None => infer_interface(&field, via, on_link, interfaces)?,
    };
    let plan =
        RoutePlan { to, via, selector, on_link, metric: metric(change.metric, is_ipv4), field };
    // The kernel checks the next hop on an interface that the request does not configure.
    let interface = interfaces.iter().find(|one| one.selector == plan.selector);
    if let (Some(via), Some(interface)) = (via, interface)
        && !on_link
        && !is_on_link(via, interface)
    {
        let reason = "is in no subnet of its interface; if it is on the link nevertheless, set \
                      `on_link`";
        return Err(Invalid::value(via_field, &via.to_string(), reason));
    }
    Ok(plan)
}

/// Parses the name or the MAC address of an interface.
fn selector(field: &str, text: &str) -> Result<Selector, Invalid> {
    match parse_mac(field, text) {
        Ok(mac) => Ok(Selector::Mac(mac)),
        Err(_) => check_interface_name(field, text).map(Selector::Name),
    }
}

/// Finds the interface of a route that names none.
fn infer_interface(
    field: &str,
    via: Option<IpAddr>,
    on_link: bool,
    interfaces: &[InterfacePlan],
) -> Result<Selector, Invalid> {
    let unclear = |reason: &str| Err(Invalid::new(format!("{field}.interface"), reason));
    if let [only] = interfaces
        && (via.is_none() || on_link || via.is_some_and(is_link_local_v6))
    {
        return Ok(only.selector.clone());
    }
    let Some(via) = via.filter(|via| !on_link && !is_link_local_v6(*via)) else {
        return unclear("is missing, and no other field determines the interface");
    };
    let has_via =
        |plan: &&InterfacePlan| plan.addresses.iter().flatten().any(|own| own.contains(via));
    match interfaces.iter().find(has_via) {
        Some(interface) => Ok(interface.selector.clone()),
        None if interfaces.is_empty() => unclear("is missing: the request has no interfaces"),
        None => {
            let reason = "is in no subnet of this request's interfaces";
            Err(Invalid::value(format!("{field}.via"), &via.to_string(), reason))
        }
    }
}

/// Reports whether a subnet of the interface contains the next hop, as far as the request tells.
fn is_on_link(via: IpAddr, interface: &InterfacePlan) -> bool {
    // The interface keeps its addresses, which only the guest knows; the kernel checks the next
    // hop.
    let Some(addresses) = &interface.addresses else { return true };
    is_link_local_v6(via) || addresses.iter().any(|address| address.contains(via))
}

/// Checks that a default route's next hop is in a subnet of its interface, or in the destination of
/// a route without a next hop.
pub(super) fn reachable(
    field: &str,
    gateway: IpAddr,
    interface: &InterfacePlan,
    routes: &[RoutePlan],
) -> Result<(), Invalid> {
    let text = gateway.to_string();
    let Some(addresses) = &interface.addresses else { return Ok(()) };
    let own = addresses.iter().any(|address| address.address() == gateway);
    let on_link = |route: &RoutePlan| {
        route.via.is_none() && route.selector == interface.selector && route.to.contains(&gateway)
    };
    if !own && (is_link_local_v6(gateway) || routes.iter().any(on_link)) {
        return Ok(());
    }
    let family =
        |address: &&crate::cidr::InterfaceAddress| address.address().is_ipv4() == gateway.is_ipv4();
    let no_address = "its interface has no address of the same address family";
    let mut refused = Invalid::value(field, &text, no_address);
    for address in addresses.iter().filter(family) {
        match check_gateway(field, &text, address) {
            Ok(_) if !own => return Ok(()),
            Ok(_) => refused = Invalid::value(field, &text, "is the interface's own address"),
            Err(invalid) => refused = invalid,
        }
    }
    Err(refused)
}

/// Checks that no route is a second default route with the metric of the gateway's.
pub(super) fn no_other_default(gateway: IpAddr, routes: &[RoutePlan]) -> Result<(), Invalid> {
    let same = routes.iter().find(|route| {
        route.to.prefix_len() == 0
            && matches!(route.to, IpNet::V4(_)) == gateway.is_ipv4()
            && route.metric == metric(None, gateway.is_ipv4())
    });
    match same {
        None => Ok(()),
        Some(route) => Err(Invalid::new(
            format!("{}.metric", route.field),
            "must differ from the gateway's metric: both are default routes",
        )),
    }
}
