//! Desired state of a plan on the interfaces of this guest, and its differences from the present state.

use super::address;
use super::dns::{DnsOwner, ResolverSettings, SystemPaths};
use super::error::NetworkError;
use super::link::{self, Link, LinkIndex};
use super::network_manager::LinkManagement;
use super::route::{self, WantedRoute};
use super::snapshot::{LinkState, NetworkSnapshot};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use minions_proto::Invalid;
use minions_proto::cidr::InterfaceAddress;
use minions_proto::message::{InterfacePlan, NetworkDiff, NetworkPlan, Selector};
use std::net::IpAddr;
use std::path::PathBuf;

/// Most differences in a reply, a limit of the protocol.
const MAX_DIFFERENCES: usize = 1024;

/// Desired state of the network.
#[derive(Debug)]
pub(super) struct DesiredNetwork {
    pub(super) links: Vec<DesiredLink>,
    /// Routes, including default routes.
    pub(super) routes: Vec<WantedRoute>,
    /// True if all other routes over these links are removed.
    pub(super) replaces_routes: bool,
    pub(super) dns: Option<(DnsOwner, ResolverSettings)>,
    /// File that is written for `dns`.
    pub(super) dns_file: PathBuf,
    pub(super) hostname: Option<String>,
}

/// Desired state of one interface.
#[derive(Debug)]
pub(super) struct DesiredLink {
    /// Present state.
    pub(super) link: Link,
    pub(super) addresses: Option<Vec<InterfaceAddress>>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) mtu: Option<u32>,
}

impl DesiredNetwork {
    /// Finds the interfaces of a plan. Changes nothing.
    pub(super) fn resolve(
        plan: &NetworkPlan,
        links: &[Link],
        (owner, system): (DnsOwner, &SystemPaths),
    ) -> Result<Self, NetworkError> {
        let mut desired = Self {
            links: Vec::new(),
            routes: Vec::new(),
            replaces_routes: plan.routes.is_some(),
            dns: None,
            dns_file: owner.file(system),
            hostname: plan.hostname.clone(),
        };
        for interface in &plan.interfaces {
            let found = desired_link(interface, links)?;
            let twice = desired.links.iter().any(|other| other.link.index == found.link.index);
            if twice {
                let reason = format!("selects {}, which the request has already", found.link.name);
                return Err(Invalid::new(&interface.field, reason).into());
            }
            desired.routes.extend(found.gateways.iter().map(|gateway| WantedRoute {
                to: everywhere(*gateway),
                via: Some(*gateway),
                link: found.link.index,
                on_link: false,
                // The kernel's default for IPv6 (`IP6_RT_PRIO_USER`).
                metric: if gateway.is_ipv4() { 0 } else { 1024 },
            }));
            desired.links.push(found);
        }
        if let Some(dns) = &plan.dns {
            let only_link = match desired.links.as_slice() {
                [only] => Some(&only.link),
                _ => None,
            };
            let resolver = ResolverSettings::planned(dns, only_link, links, (owner, system))?;
            desired.dns = Some((owner, resolver));
        }
        for plan in plan.routes.iter().flatten() {
            let field = format!("{}.interface", plan.field);
            let link = find(links, &plan.selector, &field)?;
            check_no_port(links, link, &field)?;
            desired.routes.push(WantedRoute {
                to: plan.to,
                via: plan.via,
                link: link.index,
                on_link: plan.on_link,
                metric: plan.metric,
            });
        }
        Ok(desired)
    }

    /// Keeps name servers that NetworkManager has set for an interface: it removes them when it releases the
    /// interface. If the change has no name servers, they are written as if the host had set them.
    pub(super) fn keep_dns(
        &mut self,
        now: &NetworkSnapshot,
        (owner, system): (DnsOwner, &SystemPaths),
    ) {
        let brings_some =
            |state: &LinkState| matches!(state.network_manager, LinkManagement::Managed(Some(_)));
        if self.dns.is_none()
            && owner != DnsOwner::ResolvConf
            && now.links.iter().any(brings_some)
            && let Some(present) = owner.present(system)
        {
            self.dns = Some((owner, present));
        }
    }

    /// Returns the interfaces whose addresses or default routes are set by this change alone.
    pub(super) fn exclusive_links(&self) -> impl Iterator<Item = LinkIndex> {
        let exclusive = self.links.iter().filter(|one| one.is_exclusive());
        exclusive.map(|one| one.link.index)
    }

    /// Returns the differences from `now`; empty if the desired state is present already.
    pub(super) fn differences(&self, now: &NetworkSnapshot, links: &[Link]) -> Vec<NetworkDiff> {
        let mut list = DiffList(Vec::new());
        for one in &self.links {
            one.differences(now, &mut list);
        }
        let name = |route: &crate::netlink::route::RouteMessage| {
            let index = route::output_of(route);
            links.iter().find(|link| Some(link.index) == index).map(|link| link.name.clone())
        };
        for route in now.routes.iter().filter(|route| route::is_superfluous(route, self)) {
            let (via, metric) = (route::gateway_of(route), route::metric_of(route));
            let text = route::destination_of(route).map(|to| in_words(to, via, metric));
            list.push("route", name(route), text, None);
        }
        for wanted in self.routes.iter().filter(|one| !one.is_among(&now.routes)) {
            let link = links.iter().find(|link| link.index == wanted.link);
            let text = in_words(wanted.to, wanted.via, wanted.metric);
            list.push("route", link.map(|link| link.name.clone()), None, Some(text));
        }
        self.dns_differences(now, &mut list);
        if let Some(hostname) = &self.hostname {
            list.compare("hostname", None, &now.hostname, hostname);
        }
        list.0
    }

    fn dns_differences(&self, now: &NetworkSnapshot, list: &mut DiffList) {
        let Some((owner, resolver)) = &self.dns else { return };
        if now.files.iter().any(|file| file.path == self.dns_file && owner.holds(file, resolver)) {
            return;
        }
        let before = list.0.len();
        let present = now.dns.servers.join(" ");
        let wanted = resolver.servers.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wanted = wanted.join(" ");
        list.compare("dns", None, &present, &wanted);
        list.compare("search", None, &now.dns.search.join(" "), &resolver.search.join(" "));
        if list.0.len() == before {
            // Same values, but not in the file that their owner reads after a restart.
            list.push("dns", None, Some(present), Some(wanted));
        }
    }
}

impl DesiredLink {
    pub(super) fn has_ipv6(&self) -> bool {
        self.addresses.iter().flatten().any(|address| address.address().is_ipv6())
            || self.gateways.iter().any(IpAddr::is_ipv6)
    }

    fn is_exclusive(&self) -> bool {
        self.addresses.is_some() || !self.gateways.is_empty()
    }

    fn differences(&self, now: &NetworkSnapshot, list: &mut DiffList) {
        let name = &self.link.name;
        if !self.link.up {
            list.compare("link", Some(name), "down", "up");
        }
        if let Some(mtu) = self.mtu {
            list.compare("mtu", Some(name), &self.link.mtu.to_string(), &mtu.to_string());
        }
        let Some(addresses) = &self.addresses else { return };
        match now.state_of(self.link.index).map(|state| &state.network_manager) {
            Some(LinkManagement::Managed(_) | LinkManagement::External) => {
                list.compare("network_manager", Some(name), "managed", "unmanaged");
            }
            Some(LinkManagement::Unmanaged | LinkManagement::Unknown) | None => {}
        }
        if let Some(accept_ra) = now.accept_ra(self.link.index) {
            list.compare("accept_ra", Some(name), accept_ra, "0");
        }
        let present = now.addresses_of(self.link.index);
        for old in address::superfluous(&present, addresses) {
            let text = address::in_words(old);
            list.push("address", Some(name.clone()), text, None);
        }
        for new in addresses.iter().filter(|one| !address::is_present(&present, one)) {
            list.push("address", Some(name.clone()), None, Some(new.to_string()));
        }
    }
}

struct DiffList(Vec<NetworkDiff>);

impl DiffList {
    fn push(
        &mut self,
        what: &str,
        interface: Option<String>,
        from: Option<String>,
        to: Option<String>,
    ) {
        if self.0.len() < MAX_DIFFERENCES {
            self.0.push(NetworkDiff { what: what.to_owned(), interface, from, to });
        }
    }

    fn compare(&mut self, what: &str, interface: Option<&str>, from: &str, to: &str) {
        if from != to {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            self.push(what, interface.map(str::to_owned), some(from), some(to));
        }
    }
}

fn desired_link(plan: &InterfacePlan, links: &[Link]) -> Result<DesiredLink, NetworkError> {
    let field = match &plan.selector {
        Selector::Default => plan.field.clone(),
        Selector::Name(_) => format!("{}.name", plan.field),
        Selector::Mac(_) => format!("{}.mac", plan.field),
    };
    let link = find(links, &plan.selector, &field)?.clone();
    // A port of a bridge or bond can have an MTU, but no addresses.
    if plan.addresses.is_some() || !plan.gateways.is_empty() {
        check_no_port(links, &link, &field)?;
    }
    if let (Some(mtu), Some(max)) = (plan.mtu, link.max_mtu)
        && mtu > max
    {
        let reason = format!("is {mtu}: the maximum of {} is {max}", link.name);
        return Err(Invalid::new(format!("{}.mtu", plan.field), reason).into());
    }
    Ok(DesiredLink {
        link,
        addresses: plan.addresses.clone(),
        gateways: plan.gateways.clone(),
        mtu: plan.mtu,
    })
}

fn find<'a>(links: &'a [Link], by: &Selector, field: &str) -> Result<&'a Link, NetworkError> {
    link::choose(links, by).ok_or_else(|| match by {
        Selector::Default => match link::default_port(links) {
            Some((port, of)) => {
                NetworkError::OnlyPort { port: port.name.clone(), of: of.name.clone() }
            }
            None => NetworkError::NoInterface,
        },
        Selector::Name(name) => {
            Invalid::value(field, name, "no such interface in the guest").into()
        }
        Selector::Mac(mac) => {
            let digits = mac.map(|byte| format!("{byte:02x}"));
            Invalid::value(field, &digits.join(":"), "no such interface in the guest").into()
        }
    })
}

/// Refuses a port of a bridge or bond: the bridge or bond receives the packets for a port's addresses, but does not
/// have these addresses.
fn check_no_port(links: &[Link], link: &Link, field: &str) -> Result<(), Invalid> {
    match link::controller_of(links, link) {
        None => Ok(()),
        Some(of) => {
            let reason = format!(
                "is a port of {0}, which has the addresses; configure {0} instead",
                of.name
            );
            Err(Invalid::value(field, &link.name, &reason))
        }
    }
}

/// Returns the destination of a default route.
fn everywhere(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

fn in_words(to: IpNet, via: Option<IpAddr>, metric: u32) -> String {
    let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
    let metric = if metric == 0 { String::new() } else { format!(" metric {metric}") };
    format!("{to}{via}{metric}")
}
