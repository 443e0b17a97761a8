//! Resolver settings that result from a change.

use super::{DnsOwner, SystemPaths};
use crate::net::error::NetworkError;
use crate::net::link::{self, Link};
use minions_proto::Invalid;
use minions_proto::message::{Dns, DnsPlan, Selector};
use minions_proto::name_server::ServerAddress;

/// All resolver settings, including those that a change keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::net) struct ResolverSettings {
    /// Name servers. Link-local ones have a zone, the kernel's name of the interface.
    pub(in crate::net) servers: Vec<ServerAddress>,
    pub(in crate::net) search: Vec<String>,
    /// Lines of resolv.conf(5) without a server or search domain: `options`, `sortlist`.
    pub(in crate::net) kept: Vec<String>,
}

impl ResolverSettings {
    /// Returns the settings after a request. Options stay, and search domains too if the request has none.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for `dns[n]` if it is a link-local server whose interface the guest does not have, or if the owner
    /// does not accept such servers.
    pub(in crate::net) fn planned(
        plan: &DnsPlan,
        only_link: Option<&Link>,
        links: &[Link],
        (owner, system): (DnsOwner, &SystemPaths),
    ) -> Result<Self, NetworkError> {
        let servers = plan.servers.iter().enumerate();
        let servers = servers.map(|(at, server)| zoned(at, server, only_link, links, owner));
        Ok(Self {
            servers: servers.collect::<Result<_, _>>()?,
            search: plan.search.clone().unwrap_or_else(|| domains(&owner.read(system))),
            kept: owner.kept(system),
        })
    }

    /// Returns the present settings, as far as they can be written again; `None` without a name server.
    pub(in crate::net) fn present(present: &Dns, kept: Vec<String>) -> Option<Self> {
        let servers: Vec<_> = present.servers.iter().filter_map(|text| text.parse().ok()).collect();
        (!servers.is_empty()).then(|| Self { servers, search: domains(present), kept })
    }
}

/// Returns the search domains. Omits the root domain, which systemd-resolved writes if there is no other one.
fn domains(present: &Dns) -> Vec<String> {
    present.search.iter().filter(|domain| *domain != ".").cloned().collect()
}

fn zoned(
    at: usize,
    server: &ServerAddress,
    only_link: Option<&Link>,
    links: &[Link],
    owner: DnsOwner,
) -> Result<ServerAddress, Invalid> {
    let invalid = |reason: &str| Invalid::value(format!("dns[{at}]"), &server.to_string(), reason);
    let zone = match &server.zone {
        Some(zone) => {
            let found = link::choose(links, &Selector::Name(zone.clone()));
            Some(found.ok_or_else(|| invalid("the guest has no interface of this name"))?)
        }
        None if server.needs_zone() => Some(
            only_link.ok_or_else(|| invalid("is link-local: append the interface, as in %eth0"))?,
        ),
        None => None,
    };
    if zone.is_some() && owner == DnsOwner::NetworkManager {
        return Err(invalid(
            "NetworkManager manages the guest's name servers and ignores link-local ones",
        ));
    }
    Ok(ServerAddress { address: server.address, zone: zone.map(|link| link.name.clone()) })
}
