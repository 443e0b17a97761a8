//! State of the network before a change, for restoring it.
//!
//! Includes everything that a change can affect, also indirectly: the kernel removes routes together with an address,
//! whatever their table.

use super::desired::{DesiredLink, DesiredNetwork};
use super::dns::{DnsOwner, SystemPaths};
use super::error::NetworkError;
use super::link::LinkIndex;
use super::network_manager::{self, LinkManagement};
use super::rtnl::Rtnl;
use super::saved_file::SavedFile;
use super::{address, ipv6, networkd, route};
use crate::boot_clock;
use crate::netlink::address::AddressMessage;
use crate::netlink::route::{RouteMessage, TABLE_LOCAL};
use minions_proto::message::Dns;
use rustix::system::uname;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;

/// State of the network at one time.
#[derive(Debug, Clone)]
pub(super) struct NetworkSnapshot {
    pub(super) links: Vec<LinkState>,
    /// Addresses of these links, in the kernel's order.
    pub(super) addresses: Vec<AddressMessage>,
    /// Routes of all links except those in the local table, in the kernel's order.
    pub(super) routes: Vec<RouteMessage>,
    pub(super) files: Vec<SavedFile>,
    pub(super) hostname: String,
    /// Resolver settings, only for comparison: the files are restored.
    pub(super) dns: Dns,
    /// Time of the snapshot in seconds on the boot clock, to adjust lifetimes.
    pub(super) taken: u64,
}

/// State of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinkState {
    pub(super) index: LinkIndex,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) mtu: u32,
    /// `accept_ra`; `None` if the change does not set it: there is no IPv6, or the setting is read-only and the
    /// request has no IPv6 settings.
    pub(super) accept_ra: Option<String>,
    /// Relation of NetworkManager to the interface, if the change sets its addresses.
    #[serde(default)]
    pub(super) network_manager: LinkManagement,
}

impl NetworkSnapshot {
    /// Reads the links of `desired`, all routes, the hostname, and the files that a change writes for `owner` and for
    /// these links.
    pub(super) async fn take(
        rtnl: &Rtnl,
        desired: &DesiredNetwork,
        owner: DnsOwner,
        system: &SystemPaths,
    ) -> Result<Self, NetworkError> {
        let mut addresses = Vec::new();
        let mut states = Vec::new();
        let mut paths = vec![owner.file(system)];
        let mut management = managements(desired, system).await;
        for one in &desired.links {
            let link = &one.link;
            addresses.extend(address::list(rtnl, link.index).await?);
            states.push(LinkState {
                index: link.index,
                name: link.name.clone(),
                up: link.up,
                mtu: link.mtu,
                accept_ra: accept_ra(one).map_err(NetworkError::Routers)?,
                network_manager: management.remove(&link.index).unwrap_or_default(),
            });
            paths.push(networkd::file(&system.run, &link.name));
            paths.push(network_manager::file(&system.run, &link.name));
        }
        let mut routes = route::list(rtnl).await?;
        routes.retain(is_kept);
        let files = paths.iter().map(|path| {
            SavedFile::read(path)
                .map_err(|source| NetworkError::File { path: path.clone(), source })
        });
        Ok(Self {
            links: states,
            addresses,
            routes,
            files: files.collect::<Result<_, _>>()?,
            hostname: uname().nodename().to_string_lossy().into_owned(),
            dns: owner.read(system),
            taken: boot_clock::now().as_secs(),
        })
    }

    pub(super) fn accept_ra(&self, link: LinkIndex) -> Option<&str> {
        self.state_of(link)?.accept_ra.as_deref()
    }

    pub(super) fn state_of(&self, link: LinkIndex) -> Option<&LinkState> {
        self.links.iter().find(|state| state.index == link)
    }

    pub(super) fn addresses_of(&self, link: LinkIndex) -> Vec<AddressMessage> {
        let of = self.addresses.iter().filter(|address| address.index == link);
        of.cloned().collect()
    }
}

fn accept_ra(one: &DesiredLink) -> io::Result<Option<String>> {
    let name = &one.link.name;
    if one.has_ipv6() || ipv6::is_writable(name) { ipv6::accept_ra(name) } else { Ok(None) }
}

/// Queries NetworkManager about the interfaces whose addresses the change sets.
async fn managements(
    desired: &DesiredNetwork,
    system: &SystemPaths,
) -> HashMap<LinkIndex, LinkManagement> {
    let set = desired.links.iter().filter(|one| one.addresses.is_some());
    let links: Vec<_> = set.map(|one| (one.link.index, one.link.name.clone())).collect();
    let system = system.clone();
    let asked = crate::task::spawn_blocking(move || {
        let all = links.iter();
        all.map(|(index, name)| (*index, network_manager::management(&system, name))).collect()
    });
    asked.await.unwrap_or_default()
}

/// Reports whether a route belongs in a snapshot: it is not in the local table, which the kernel maintains.
pub(super) fn is_kept(route: &RouteMessage) -> bool {
    route.table != TABLE_LOCAL
}
