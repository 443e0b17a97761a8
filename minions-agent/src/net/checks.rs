//! Objects of the checks that follow a change.
//!
//! A check without an object proves nothing and must not be reported as passed. If the request names such a check, the
//! request is refused before anything is changed. Such a default check is skipped.

use super::address::{ip_of, is_link_local_v6};
use super::desired::{DesiredLink, DesiredNetwork};
use super::link::{self, Link, LinkIndex};
use super::route;
use super::snapshot::NetworkSnapshot;
use minions_proto::Invalid;
use minions_proto::message::{Check, NetworkPlan, Selector};
use minions_proto::name_server::ServerAddress;
use std::net::IpAddr;

/// The checks of one change, and their objects.
#[derive(Debug)]
pub(super) struct ChangeChecks {
    /// Checks in the order of [`Check::ALL`]. Each has at least one object below.
    pub(super) list: Vec<Check>,
    pub(super) links: Vec<LinkName>,
    pub(super) addresses: Vec<LinkAddress>,
    /// Next hops of default routes, in both families.
    pub(super) next_hops: Vec<NextHop>,
    /// Next hops that can be queried on the link. Those on a tunnel, for example, cannot be queried.
    pub(super) routers: Vec<Router>,
    pub(super) servers: Vec<NameServer>,
}

/// An interface, with its name for error messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkName {
    pub(super) index: LinkIndex,
    pub(super) name: String,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkAddress {
    pub(super) link: LinkName,
    pub(super) ip: IpAddr,
}

/// A router on the link: the next hop of a default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NextHop {
    pub(super) link: LinkName,
    pub(super) gateway: IpAddr,
    /// True if the route itself declares that the gateway is on the link, so that no other route is needed.
    pub(super) on_link: bool,
}

/// A router that answers ARP or neighbour discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Router {
    pub(super) link: LinkName,
    pub(super) address: IpAddr,
}

/// A name server to query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameServer {
    pub(super) address: ServerAddress,
    /// Index of the interface of a link-local address, otherwise 0.
    pub(super) scope: LinkIndex,
}

impl ChangeChecks {
    /// Finds the objects in the settings of the request and, for checks that the request names, also in the settings
    /// that its interfaces keep.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with the field `verify`, if the request names a check without an object.
    pub(super) fn of(
        plan: &NetworkPlan,
        desired: &DesiredNetwork,
        now: &NetworkSnapshot,
        links: &[Link],
    ) -> Result<Self, Invalid> {
        let name = |index: LinkIndex| LinkName::of(index, links);
        let mut checks = Self {
            list: Vec::new(),
            links: desired.links.iter().map(|one| name(one.link.index)).collect(),
            addresses: desired.links.iter().flat_map(set_addresses).collect(),
            next_hops: Vec::new(),
            routers: Vec::new(),
            servers: servers(desired, now, links),
        };
        let wanted = desired.routes.iter().filter(|route| route.to.prefix_len() == 0);
        checks.add_next_hops(wanted.filter_map(|route| {
            let gateway = route.via?;
            Some(NextHop { link: name(route.link), gateway, on_link: route.on_link })
        }));
        if plan.checks_named {
            let kept = desired.links.iter().filter(|one| one.addresses.is_none());
            checks.addresses.extend(kept.flat_map(|one| kept_addresses(&one.link, now)));
            checks.add_next_hops(kept_next_hops(desired, now, links));
        }
        checks.find_routers(links);
        for check in &plan.checks {
            if checks.has_object(*check) {
                checks.list.push(*check);
            } else if plan.checks_named {
                return Err(without_object(*check));
            }
        }
        Ok(checks)
    }

    /// Adds next hops, each only once even if several routes use it.
    fn add_next_hops(&mut self, hops: impl IntoIterator<Item = NextHop>) {
        for hop in hops {
            if !self.next_hops.contains(&hop) {
                self.next_hops.push(hop);
            }
        }
    }

    /// Collects the routers, each only once even if it is the next hop of an on-link route and of another route.
    fn find_routers(&mut self, links: &[Link]) {
        for hop in &self.next_hops {
            let router = Router { link: hop.link.clone(), address: hop.gateway };
            let link = links.iter().find(|link| link.index == hop.link.index);
            let can_be_queried = link.is_some_and(|link| link.asks_neighbours);
            if can_be_queried && !self.routers.contains(&router) {
                self.routers.push(router);
            }
        }
    }

    fn has_object(&self, check: Check) -> bool {
        match check {
            Check::Link => !self.links.is_empty(),
            Check::Addresses => !self.addresses.is_empty(),
            Check::Route => !self.next_hops.is_empty(),
            Check::Gateway => !self.routers.is_empty(),
            Check::Dns => !self.servers.is_empty(),
        }
    }
}

impl LinkName {
    pub(super) fn of(index: LinkIndex, links: &[Link]) -> Self {
        let found = links.iter().find(|link| link.index == index);
        Self { index, name: found.map(|link| link.name.clone()).unwrap_or_default() }
    }
}

fn without_object(check: Check) -> Invalid {
    let missing = match check {
        Check::Link => "the request has no `interfaces`",
        Check::Addresses => "no interface of the request has an address",
        Check::Gateway | Check::Route => {
            "no default route of the request or of its interfaces has a next hop; give `gateways`"
        }
        Check::Dns => "the guest has no name server; give `dns`",
    };
    let reason = format!("asks for `{}`, which has nothing to check: {missing}", check.as_str());
    Invalid::new("verify", reason)
}

fn set_addresses(one: &DesiredLink) -> impl Iterator<Item = LinkAddress> {
    let link = LinkName { index: one.link.index, name: one.link.name.clone() };
    let addresses = one.addresses.iter().flatten();
    addresses.map(move |address| LinkAddress { link: link.clone(), ip: address.address() })
}

/// Returns the addresses that an interface keeps. Link-local addresses belong to the kernel and are not checked.
fn kept_addresses(link: &Link, now: &NetworkSnapshot) -> Vec<LinkAddress> {
    let name = LinkName { index: link.index, name: link.name.clone() };
    let present = now.addresses_of(link.index);
    let present = present.iter().filter(|address| !is_link_local_v6(address)).filter_map(ip_of);
    present.map(|ip| LinkAddress { link: name.clone(), ip }).collect()
}

/// Returns the next hops of the default routes that stay and use an interface of the request.
fn kept_next_hops(desired: &DesiredNetwork, now: &NetworkSnapshot, links: &[Link]) -> Vec<NextHop> {
    let stays = |route: &&crate::netlink::route::RouteMessage| {
        route::is_default(route) && !route::is_superfluous(route, desired)
    };
    let hops = now.routes.iter().filter(stays).flat_map(route::hops_of);
    let ours = hops.filter(|hop| desired.links.iter().any(|one| one.link.index == hop.link));
    ours.map(|hop| NextHop {
        link: LinkName::of(hop.link, links),
        gateway: hop.gateway,
        on_link: hop.on_link,
    })
    .collect()
}

/// Returns the name servers that the change sets, or the present ones if it sets none.
fn servers(desired: &DesiredNetwork, now: &NetworkSnapshot, links: &[Link]) -> Vec<NameServer> {
    let all: Vec<ServerAddress> = match &desired.dns {
        Some((_, resolver)) => resolver.servers.clone(),
        None => now.dns.servers.iter().filter_map(|text| text.parse().ok()).collect(),
    };
    let scope = |server: &ServerAddress| {
        let zone = Selector::Name(server.zone.clone()?);
        link::choose(links, &zone).map(|link| link.index)
    };
    all.into_iter()
        .map(|address| NameServer { scope: scope(&address).unwrap_or(0), address })
        .collect()
}
