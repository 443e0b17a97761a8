//! Conversion of a request to a plan, with a check of every value.

use super::base::ConfigureNetwork;
use super::bounds::{
    CONFIRM_WITHIN_MS, MAX_ADDRESSES, MAX_DNS_SERVERS, MAX_INTERFACES, MAX_SEARCH_DOMAINS, MTU,
    at_most,
};
use super::change::{ChangeNetwork, InterfaceChange};
use super::check::Check;
use super::plan::{DnsPlan, InterfacePlan, NetworkPlan, RoutePlan, Selector};
use super::routes::{self, check_routes};
use crate::cidr::{InterfaceAddress, check_gateway};
use crate::error::Invalid;
use crate::name_server::ServerAddress;
use crate::names::{check_domain, check_hostname, check_interface_name, parse_mac};
use std::net::IpAddr;
use std::time::Duration;

impl ConfigureNetwork {
    /// Checks the whole request. Both ends call it: the host to reject early, the guest because it
    /// does not trust the host's check.
    ///
    /// # Errors
    ///
    /// The first invalid field, and what would be right.
    pub fn plan(&self) -> Result<NetworkPlan, Invalid> {
        base(&self.ip, &self.gateway, &self.dns)
    }
}

impl ChangeNetwork {
    /// Checks the whole request, as far as possible without the guest.
    ///
    /// # Errors
    ///
    /// The first invalid field, and what would be right.
    pub fn plan(&self) -> Result<NetworkPlan, Invalid> {
        rich(self)
    }
}

/// Checks the base form, which has no checks after the change and needs no confirmation.
fn base(ip: &str, gateway: &str, dns: &[String]) -> Result<NetworkPlan, Invalid> {
    let interface = first_interface(ip, gateway)?;
    Ok(NetworkPlan {
        interfaces: vec![interface],
        routes: None,
        dns: check_dns(dns, None, 1)?,
        hostname: None,
        checks: Vec::new(),
        checks_named: false,
        confirm_within: None,
        dry_run: false,
    })
}

fn rich(change: &ChangeNetwork) -> Result<NetworkPlan, Invalid> {
    if let Some(mtu) = change.mtu {
        check_mtu("mtu", mtu)?;
    }
    let mut interfaces = interfaces(change)?;
    if interfaces.is_empty() && change.mtu.is_some() {
        return Err(Invalid::new("mtu", "requires an interface; give `interfaces`, or `ip`"));
    }
    for interface in &mut interfaces {
        interface.mtu = interface.mtu.or(change.mtu);
    }
    let routes = match &change.routes {
        None => None,
        Some(given) => Some(check_routes(given, &interfaces)?),
    };
    check_gateways(&interfaces, routes.as_deref().unwrap_or_default(), change)?;
    let servers = change.dns.as_deref().unwrap_or_default();
    let dns = check_dns(servers, change.search.as_deref(), interfaces.len())?;
    let given = change.hostname.as_deref();
    let hostname = given.map(|name| check_hostname("hostname", name)).transpose()?;
    if interfaces.is_empty() && routes.is_none() && dns.is_none() && hostname.is_none() {
        let reason = "is missing: give `ip` and `gateway`, or another setting to change";
        return Err(Invalid::new("interfaces", reason));
    }
    Ok(NetworkPlan {
        checks: checks(change),
        checks_named: change.verify.is_some(),
        interfaces,
        routes,
        dns,
        hostname,
        confirm_within: confirm_within(change)?,
        dry_run: change.dry_run.unwrap_or(false),
    })
}

fn checks(change: &ChangeNetwork) -> Vec<Check> {
    match &change.verify {
        Some(asked) => Check::ALL.into_iter().filter(|check| asked.contains(check)).collect(),
        None if change.interfaces.is_empty() => Vec::new(),
        None => Check::ALL.into_iter().filter(|check| *check != Check::Dns).collect(),
    }
}

fn confirm_within(change: &ChangeNetwork) -> Result<Option<Duration>, Invalid> {
    match change.confirm_within_ms {
        Some(ms) if !CONFIRM_WITHIN_MS.contains(&ms) => Err(Invalid::new(
            "confirm_within_ms",
            format!(
                "is {ms}: give {} to {} milliseconds",
                CONFIRM_WITHIN_MS.start(),
                CONFIRM_WITHIN_MS.end()
            ),
        )),
        ms => Ok(ms.map(Duration::from_millis)),
    }
}

fn interfaces(change: &ChangeNetwork) -> Result<Vec<InterfacePlan>, Invalid> {
    let ChangeNetwork { ip, gateway, interfaces, .. } = change;
    match (ip, gateway) {
        (Some(_), _) | (_, Some(_)) if !interfaces.is_empty() => {
            let field = if ip.is_some() { "ip" } else { "gateway" };
            Err(Invalid::new(field, "conflicts with `interfaces`; give one of them"))
        }
        (Some(ip), Some(gateway)) => first_interface(ip, gateway).map(|one| vec![one]),
        (Some(_), None) => Err(Invalid::new("gateway", "is missing; `ip` requires it")),
        (None, Some(_)) => Err(Invalid::new("ip", "is missing; `gateway` requires it")),
        (None, None) => named_interfaces(interfaces),
    }
}

fn first_interface(ip: &str, gateway: &str) -> Result<InterfacePlan, Invalid> {
    let address = InterfaceAddress::parse("ip", ip)?;
    let gateway = check_gateway("gateway", gateway, &address)?;
    Ok(InterfacePlan {
        field: String::new(),
        selector: Selector::Default,
        addresses: Some(vec![address]),
        gateways: vec![gateway],
        mtu: None,
    })
}

fn named_interfaces(given: &[InterfaceChange]) -> Result<Vec<InterfacePlan>, Invalid> {
    at_most("interfaces", "interfaces", given.len(), MAX_INTERFACES)?;
    let mut plans: Vec<InterfacePlan> = Vec::with_capacity(given.len());
    for (at, change) in given.iter().enumerate() {
        let plan = named_interface(format!("interfaces[{at}]"), change)?;
        if let Some(same) = plans.iter().find(|other| other.selector == plan.selector) {
            let reason = format!("is the same interface as `{}`", same.field);
            return Err(Invalid::new(plan.field, reason));
        }
        let own = plan.addresses.as_deref().unwrap_or_default();
        for (index, address) in own.iter().enumerate() {
            let others = plans.iter().flat_map(|other| other.addresses.iter().flatten());
            let mut before = others.chain(&own[..index]);
            if before.any(|other| other.address() == address.address()) {
                let field = format!("{}.addresses[{index}]", plan.field);
                return Err(Invalid::value(field, &address.to_string(), "is given twice"));
            }
        }
        plans.push(plan);
    }
    Ok(plans)
}

fn named_interface(field: String, change: &InterfaceChange) -> Result<InterfacePlan, Invalid> {
    let selector = match (&change.name, &change.mac) {
        (None, None) => Selector::Default,
        (Some(name), None) => Selector::Name(check_interface_name(&format!("{field}.name"), name)?),
        (None, Some(mac)) => Selector::Mac(parse_mac(&format!("{field}.mac"), mac)?),
        (Some(_), Some(_)) => {
            return Err(Invalid::new(format!("{field}.mac"), "conflicts with `name`; give one"));
        }
    };
    let list = format!("{field}.addresses");
    let addresses = match &change.addresses {
        None => None,
        Some(given) => {
            at_most(&list, "addresses", given.len(), MAX_ADDRESSES)?;
            let texts = given.iter().enumerate();
            let parsed = texts
                .map(|(at, address)| InterfaceAddress::parse(&format!("{list}[{at}]"), address));
            Some(parsed.collect::<Result<_, _>>()?)
        }
    };
    if let Some(mtu) = change.mtu {
        check_mtu(&format!("{field}.mtu"), mtu)?;
    }
    let texts = change.gateways.iter().enumerate();
    let gateways = texts
        .map(|(at, gateway)| routes::next_hop(&format!("{field}.gateways[{at}]"), gateway))
        .collect::<Result<_, _>>()?;
    Ok(InterfacePlan { field, selector, addresses, gateways, mtu: change.mtu })
}

/// Checks that every gateway can be reached, and that no address family has two default routes of
/// the same metric.
fn check_gateways(
    interfaces: &[InterfacePlan],
    routes: &[RoutePlan],
    change: &ChangeNetwork,
) -> Result<(), Invalid> {
    let mut seen: Vec<IpAddr> = Vec::new();
    for (interface, change) in interfaces.iter().zip(&change.interfaces) {
        for (at, (gateway, text)) in interface.gateways.iter().zip(&change.gateways).enumerate() {
            let field = format!("{}.gateways[{at}]", interface.field);
            if seen.iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
                let reason = "is a second default route of its address family; add it to `routes` with a metric";
                return Err(Invalid::value(field, text, reason));
            }
            seen.push(*gateway);
            routes::reachable(&field, *gateway, interface, routes)?;
        }
    }
    for interface in interfaces {
        for gateway in &interface.gateways {
            routes::no_other_default(*gateway, routes)?;
        }
    }
    Ok(())
}

fn check_mtu(field: &str, mtu: u32) -> Result<(), Invalid> {
    if MTU.contains(&mtu) {
        return Ok(());
    }
    let reason =
        format!("is {mtu}: must be {} (the minimum of IPv6) to {}", MTU.start(), MTU.end());
    Err(Invalid::new(field, reason))
}

fn check_dns(
    servers: &[String],
    search: Option<&[String]>,
    interfaces: usize,
) -> Result<Option<DnsPlan>, Invalid> {
    at_most("dns", "servers", servers.len(), MAX_DNS_SERVERS)?;
    at_most("search", "domains", search.map_or(0, <[_]>::len), MAX_SEARCH_DOMAINS)?;
    let servers: Vec<_> = servers
        .iter()
        .enumerate()
        .map(|(at, server)| check_server(&format!("dns[{at}]"), server, interfaces))
        .collect::<Result<_, _>>()?;
    let domains = |search: &[String]| {
        let search = search.iter().enumerate();
        search.map(|(at, domain)| check_domain(&format!("search[{at}]"), domain)).collect()
    };
    let search: Option<Vec<_>> = search.map(domains).transpose()?;
    match (servers.is_empty(), search.as_ref().is_none_or(Vec::is_empty)) {
        (true, true) => Ok(None),
        (true, false) => Err(Invalid::new("dns", "is missing; `search` requires it")),
        (false, _) => Ok(Some(DnsPlan { servers, search })),
    }
}

fn check_server(field: &str, text: &str, interfaces: usize) -> Result<ServerAddress, Invalid> {
    let server = ServerAddress::parse(field, text)?;
    if server.needs_zone() && interfaces != 1 {
        let reason = format!(
            "is link-local, and the request has {interfaces} interfaces: append the interface, as in {text}%eth0"
        );
        return Err(Invalid::value(field, text, &reason));
    }
    Ok(server)
}
